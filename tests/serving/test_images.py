"""Pictures of every kind, whole and broken."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.images import as_rgb, open_image
from pictures import (
    COLOURS,
    RAMP,
    WHITES,
    WHOLE,
    animation,
    deep_png,
    deep_tiff,
    encoded,
    grey_alpha_16,
    png_header,
    ramp,
    shown,
)
from PIL import Image


@pytest.mark.parametrize("name", WHOLE)
def test_every_kind_becomes_rgb(name: str) -> None:
    with Image.open(io.BytesIO(WHOLE[name])) as raw:
        size = raw.size
    found = open_image(WHOLE[name])
    assert found.mode == "RGB" and found.size == size


def test_plain_pictures_keep_every_pixel(tmp_path: Path) -> None:
    for kind in ("PNG", "BMP", "PPM", "TIFF"):
        assert np.array_equal(open_image(encoded(COLOURS, kind)), COLOURS)
    (tmp_path / "a.png").write_bytes(encoded(COLOURS))
    assert np.array_equal(open_image(tmp_path / "a.png"), open_image(str(tmp_path / "a.png")))
    assert np.array_equal(open_image(encoded(COLOURS.convert("L"))), COLOURS.convert("L").convert("RGB"))


@pytest.mark.parametrize("bits", WHITES)
def test_deep_grey_is_neither_black_nor_clipped(bits: int) -> None:
    values, wanted = ramp(bits), shown(ramp(bits), bits)
    files = [encoded(values.astype(np.uint16), kind) for kind in ("PNG", "TIFF")]
    files += [encoded(values.astype(np.int32), "TIFF"), encoded(values.astype(np.float32), "TIFF")]
    files += [deep_png(values, 0), encoded(values.astype(">u2"), "TIFF", compression="tiff_lzw")]
    for data in files:
        found = np.asarray(open_image(data))
        assert np.array_equal(found, np.stack([wanted] * 3, -1)), data[:8]


@pytest.mark.parametrize("bits", WHITES)
def test_deep_colour_is_neither_black_nor_clipped(bits: int) -> None:
    values = np.stack([ramp(bits), ramp(bits)[::-1], ramp(bits)[:, ::-1]], -1)
    wanted = shown(values, bits)
    files = [deep_png(values, 2), deep_tiff(values, "<"), deep_tiff(values, ">")]
    files += [encoded(Image.open(io.BytesIO(files[0])), "PNG")] * (bits == 16)  # 8 bits, upper bytes alone
    for data in files[:3]:
        assert np.array_equal(open_image(data), wanted), data[:8]
    if bits == 16:
        assert np.abs(np.asarray(open_image(files[3]), dtype=int) - wanted).max() <= 1


@pytest.mark.parametrize("bits", WHITES)
def test_deep_pictures_with_transparency(bits: int) -> None:
    values, white = ramp(bits), WHITES[bits]
    for opaque in {white, 65535}:
        alpha = np.where(RAMP % 2, opaque, 0)
        wanted = np.where(RAMP % 2, shown(values, bits), 255)
        for data in (grey_alpha_16(values, alpha), deep_png(np.stack([values] * 3 + [alpha], -1), 6)):
            assert np.array_equal(np.asarray(open_image(data))[..., 1], wanted)


def test_a_transparent_colour_of_16_bits() -> None:
    def key(*numbers: int) -> bytes:
        data = struct.pack(f">{len(numbers)}H", *numbers)
        return struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))

    values = ramp(16)
    wanted = shown(values, 16)
    wanted[0, 1] = 255
    grey = open_image(deep_png(values, 0, key(int(values[0, 1]))))
    colour = open_image(deep_png(np.stack([values] * 3, -1), 2, key(*[int(values[0, 1])] * 3)))
    assert np.array_equal(np.asarray(grey)[..., 0], wanted) and np.array_equal(np.asarray(colour)[..., 0], wanted)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-1024.0, 3071.0), (-5.0, -1.0)])
def test_numbers_below_zero_become_the_darkest(low: float, high: float) -> None:
    values = low + RAMP / 62 * (high - low)
    found = np.asarray(open_image(encoded(values.astype(np.float32), "TIFF")))[..., 0]
    assert np.abs(found - RAMP / 62 * 255).max() <= 0.51


def test_real_numbers_of_every_range() -> None:
    for white in (1.0, 255.0, 4095.0, 65535.0, 1e6, 3e38):
        found = np.asarray(open_image(encoded((RAMP / 62 * white).astype(np.float32), "TIFF")))[..., 1]
        assert np.abs(found - RAMP / 62 * 255).max() <= 0.51, white
    assert np.asarray(open_image(WHOLE["32 bit tiff"])).max() == 255
    assert np.asarray(open_image(WHOLE["nan tiff"])).max() == 0
    assert np.asarray(open_image(encoded(np.zeros((7, 9), np.uint16)))).max() == 0


def test_deep_pictures_turn_upright_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = open_image(encoded((RAMP * 1000).astype(np.uint16), "PNG", exif=exif))
    assert np.array_equal(np.asarray(found)[..., 0], np.rot90(shown(RAMP * 1000, 16), -1))


def test_opened_elsewhere_is_opened_alike() -> None:
    for name, data in WHOLE.items():
        if not name.startswith(("bits", "gif")):
            with Image.open(io.BytesIO(data)) as raw:
                assert np.array_equal(as_rgb(raw), open_image(data)), name


def test_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    for data in (encoded(clear), encoded(Image.new("LA", (2, 1), (0, 0)))):
        assert open_image(data).getpixel((1, 0)) == (255, 255, 255)
    assert open_image(encoded(clear)).getpixel((0, 0)) == (10, 20, 30)
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([1, 2, 3, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    found = open_image(encoded(palette, transparency=0))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 180), (6, 270), (8, 90)])
def test_exif_turns_upright(orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = open_image(encoded(COLOURS, "PNG", exif=exif))
    assert np.array_equal(found, COLOURS.rotate(turn, expand=True))


def test_of_an_animation_the_first_frame() -> None:
    assert np.array_equal(open_image(animation()), COLOURS.quantize(4).convert("RGB"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no picture that Pillow can read"),
        (b"hello", "no picture"),
        (b"<svg></svg>", "no picture"),
        (encoded(COLOURS)[:60], "cut off, damaged"),
        (encoded(COLOURS, "JPEG")[:-40], "cut off, damaged"),
        (png_header(50_000, 50_000), "decompression bomb"),
        (png_header(100, 100), "cut off, damaged"),
        (encoded(COLOURS, "EPS"), "no picture"),
    ],
    ids=["empty", "text", "svg", "cut png", "cut jpeg", "bomb", "liar", "postscript"],
)
def test_broken_pictures_are_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(LostattnError, match=says) as error:
        open_image(data)
    assert "\n" not in str(error.value)


def test_the_size_is_checked_before_decoding() -> None:
    with pytest.raises(LostattnError, match="9 x 7 pixels, more than 62: make it smaller"):
        open_image(encoded(COLOURS), max_pixels=62)
    assert open_image(encoded(COLOURS), max_pixels=63).size == (9, 7)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "none.png", "does not exist"),
        (tmp_path, "is a folder"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(LostattnError, match=says):
            open_image(path)


@pytest.mark.parametrize("name", ["gif", "16 bit tiff", "webp", "palette", "cmyk jpeg", "float tiff", "ico"])
def test_any_damage_is_one_sentence(name: str) -> None:
    draw = random.Random(name)
    for _ in range(60):
        data = bytearray(WHOLE[name])
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert open_image(bytes(data[: draw.randint(1, 2 * len(data))]), 10**6).mode == "RGB"
            except LostattnError as error:
                assert "\n" not in str(error)
