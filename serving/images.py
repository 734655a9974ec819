"""Opening pictures that users hand in, of any kind, without being harmed by them. Every command opens them here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from ..patches.errors import LostattnError
from .cause import cause
from .deep_pixels import deep_colour, deep_grey

MAX_PIXELS = 178_956_970  # a decoded RGB picture of half a gigabyte
ORIENTATION = 0x0112  # EXIF
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


def open_image(source: str | Path | bytes, max_pixels: int = MAX_PIXELS, background: Colour = WHITE) -> Image.Image:
    """First frame of a picture as RGB, turned upright by its EXIF tag.

    Grey, palette, CMYK, transparent (on `background`), 16-bit and real-valued pictures are converted. The size is read
    from the header and checked before anything is decoded.

    Args:
        source: a file, or its bytes.

    Raises:
        LostattnError: no such file, no picture, too many pixels, broken data.
    """
    name = "the image" if isinstance(source, bytes) else f"image {source}"
    try:
        with _opened(source) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise LostattnError(f"{name} has {width} x {height} pixels, more than {max_pixels}: make it smaller")
            image.seek(0)
            deep = deep_colour(image, lambda: _opened(source))
            image.load()
            return _upright(as_rgb(deep or image, background), image)
    except LostattnError:
        raise
    except FileNotFoundError as error:
        raise LostattnError(f"{name} does not exist: check the path") from error
    except IsADirectoryError as error:
        raise LostattnError(f"{name} is a folder: give a picture file") from error
    except PermissionError as error:
        raise LostattnError(f"{name} may not be read: change its permissions") from error
    except Image.DecompressionBombError as error:
        raise LostattnError(f"{name} is a decompression bomb: make it smaller") from error
    except UnidentifiedImageError as error:
        raise LostattnError(f"{name} is no picture that Pillow can read: convert it to PNG or JPEG") from error
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise LostattnError(
            f"{name} cannot be read ({cause(error)}): it is cut off, damaged or of a rare kind"
        ) from error


def as_rgb(image: Image.Image, background: Colour = WHITE) -> Image.Image:
    """A picture that was opened elsewhere as RGB: deep grey scaled to 8 bits, what is transparent on `background`."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = deep_grey(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(below, image).convert("RGB")
    return image.convert("RGB")


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture that is open already, as `open_image` would give it. Raises what its decoder raises."""
    image.load()
    return _upright(as_rgb(image), image)


def _opened(source: str | Path | bytes) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())


def _formats() -> list[str]:
    """All that Pillow reads but PostScript, a program that Ghostscript would run, and what other programs would open."""
    Image.init()
    return sorted(set(Image.OPEN) - {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})


def _upright(image: Image.Image, source: Any) -> Image.Image:
    """`image`, turned as the EXIF tag of the file says which it came from."""
    try:
        tags = source.getexif()
        image.info = {"exif": tags.tobytes()} if tags.get(ORIENTATION, 1) != 1 else {}
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole, only the EXIF data is damaged: it says nothing then
        return image
