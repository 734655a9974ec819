"""Opening pictures that users hand in, of any kind, without being harmed by them."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from ..patches.errors import LostattnError

MAX_PIXELS = 178_956_970  # a decoded RGB picture of half a gigabyte


def open_image(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """First frame of a picture as RGB, turned upright by its EXIF tag.

    Grey, palette, CMYK, transparent (on white) and 16-bit pictures are converted. The size is read from the header and
    checked before anything is decoded.

    Args:
        source: a file, or its bytes.

    Raises:
        LostattnError: no such file, no picture, too many pixels, broken data.
    """
    name = "the image" if isinstance(source, bytes) else f"image {source}"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise LostattnError(f"{name} has {width} x {height} pixels, more than {max_pixels}: make it smaller")
            image.seek(0)
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise LostattnError(f"{name} does not exist") from error
    except Image.DecompressionBombError as error:
        raise LostattnError(f"{name} is a decompression bomb: make it smaller") from error
    except UnidentifiedImageError as error:
        raise LostattnError(f"{name} is no picture that Pillow can read: convert it to PNG or JPEG") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, LostattnError):
            raise
        raise LostattnError(f"{name} cannot be read: it is cut off or damaged") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 or 32 bits of grey: Pillow's own conversion would clip to white
        grey = image.convert("I")
        top = 65535 if (grey.getextrema()[1] or 0) > 255 else 255  # type: ignore[index,operator]
        return grey.point(lambda v: v * (255 / top)).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
