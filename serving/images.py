"""Opening pictures that users hand in, of any kind, without being harmed by them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..patches.errors import LostattnError
from .cause import cause

MAX_PIXELS = 178_956_970  # a decoded RGB picture of half a gigabyte


def open_image(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """First frame of a picture as RGB, turned upright by its EXIF tag.

    Grey, palette, CMYK, transparent (on white), 16-bit and real-valued pictures are converted. The size is read from the
    header and checked before anything is decoded.

    Args:
        source: a file, or its bytes.

    Raises:
        LostattnError: no such file, no picture, too many pixels, broken data.
    """
    name = "the image" if isinstance(source, bytes) else f"image {source}"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise LostattnError(f"{name} has {width} x {height} pixels, more than {max_pixels}: make it smaller")
            image.seek(0)
            return _to_rgb(_upright(image))
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


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture that is open already, as `open_image` would give it. Raises what its decoder raises."""
    return _to_rgb(_upright(image))


def _formats() -> list[str]:
    """All that Pillow reads but PostScript, which is a program that Ghostscript would run."""
    Image.init()
    return sorted(set(Image.OPEN) - {"EPS"})


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole, only the EXIF data is damaged: it says nothing then
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_grey(image).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or of real numbers as 8 bits: Pillow's own conversion would clip nearly all to white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    brightest = float(values.max())
    steps = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = 65535.0 if image.mode.startswith("I;16") else next((s for s in steps if brightest <= s), brightest)
    return Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))
