"""Pictures of every kind as files: whole ones, and ones of more than 8 bits a channel."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8))
RAMP = np.arange(63).reshape(7, 9)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nearly nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def animation() -> bytes:
    others = [Image.new("RGB", (9, 7), "red"), Image.new("RGB", (9, 7), "blue")]
    return encoded(COLOURS.quantize(4), "GIF", save_all=True, append_images=others)


WHOLE = {
    "1x1": encoded(Image.new("RGB", (1, 1))),
    "1xN": encoded(Image.new("L", (1, 40))),
    "Nx1": encoded(Image.new("P", (40, 1))),
    "grey": encoded(COLOURS.convert("L")),
    "bits": encoded(COLOURS.convert("1")),
    "palette": encoded(COLOURS.convert("P")),
    "cmyk jpeg": encoded(COLOURS.convert("CMYK"), "JPEG"),
    "cmyk tiff": encoded(COLOURS.convert("CMYK"), "TIFF"),
    "rgba": encoded(COLOURS.convert("RGBA")),
    "la": encoded(COLOURS.convert("LA")),
    "lab": encoded(Image.new("LAB", (3, 3)), "TIFF"),
    "16 bit": encoded((RAMP * 1000).astype(np.uint16)),
    "16 bit tiff": encoded((RAMP * 1000).astype(np.uint16), "TIFF"),
    "32 bit tiff": encoded((RAMP * 10**6).astype(np.int32), "TIFF"),
    "float tiff": encoded((RAMP / 62).astype(np.float32), "TIFF"),
    "nan tiff": encoded(np.full((7, 9), np.nan, np.float32), "TIFF"),
    "gif": animation(),
    "ppm": encoded(COLOURS, "PPM"),
    "webp": encoded(COLOURS, "WEBP"),
    "bmp": encoded(COLOURS, "BMP"),
    "ico": encoded(Image.new("RGB", (16, 16)), "ICO"),
}
WHITES = {8: 255, 10: 1023, 12: 4095, 14: 16383, 16: 65535}  # brightest number of usual depths


def ramp(bits: int) -> Any:
    """Numbers from 0 to the brightest of a depth."""
    return np.round(RAMP / 62 * WHITES[bits])


def grey_alpha_16(grey: Any, alpha: Any) -> bytes:
    """A PNG of 16-bit grey with 16-bit alpha, which Pillow reads and does not write."""
    return deep_png(np.stack([grey, alpha], -1), 4)


def deep_png(samples: Any, colour: int, more: bytes = b"") -> bytes:
    """A PNG of 16 bits a sample, whatever its colour type, unfiltered."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples.astype(np.uint16))
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_tiff(samples: Any, order: str = "<", photometric: int = 2) -> bytes:
    """An uncompressed TIFF of 16 bits a sample in either order of bytes."""
    height, width, count = samples.shape
    data = samples.astype(f"{order}u2").tobytes()
    tags = [
        (256, width),
        (257, height),
        (259, 1),
        (262, photometric),
        (273, 200),
        (277, count),
        (278, height),
        (279, len(data)),
    ]
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags]
    entries.insert(2, struct.pack(f"{order}HHII", 258, 3, count, 180))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    head = start + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return head.ljust(180, b"\0") + struct.pack(f"{order}4H", 16, 16, 16, 16).ljust(20, b"\0") + data


def shown(values: Any, bits: int) -> Any:
    """What of a depth is to be seen in 8 bits."""
    return np.round(values / WHITES[bits] * 255)
