"""Pictures of more than 8 bits a channel as 8 bits, without what Pillow does to them: clip them to white or to black.

A file says how many bits it has room for, not how many its camera had: 12 bits in a 16-bit file are common. So white is
the largest number of the smallest usual depth that holds the picture's brightest number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

WHITES = (255, 1023, 4095, 16383, 65535)  # 8, 10, 12, 14 and 16 bits
# what Pillow calls 16 bits a channel in a file, by order of bytes; it keeps the upper byte, and the other order's name
# makes it keep the lower one
LITTLE, BIG = (f"{mode};16L" for mode in ("RGB", "RGBA")), (f"{mode};16B" for mode in ("RGB", "RGBA"))
LOWER = {a: b for pair in zip(LITTLE, BIG, strict=True) for a, b in (pair, pair[::-1])}
LOWER |= {f"{mode};16N": LOWER[f"{mode};16{sys.byteorder[0].upper()}"] for mode in ("RGB", "RGBA")}
GREY_AND_ALPHA = "LA;16B"  # Pillow opens it as RGBA of the upper bytes


def deep_colour(image: Any, again: Callable[[], Any]) -> Image.Image | None:
    """A picture of 16 bits a channel in colour, or in grey with transparency, as RGB or RGBA; None if it is none.

    Args:
        image: opened and not loaded yet.
        again: opens the same file once more.
    """
    raw = {_rawmode(tile) for tile in getattr(image, "tile", ())}
    if raw == {GREY_AND_ALPHA}:
        with again() as other:
            bytes_of = np.asarray(_loaded_as(other, "RGBA"))  # upper and lower byte of the grey, then of the alpha
        grey, alpha = (bytes_of[..., i].astype(np.uint16) << 8 | bytes_of[..., i + 1] for i in (0, 2))
        return _merged([grey, grey, grey, alpha])
    if len(raw) != 1 or (lower := LOWER.get(next(iter(raw)))) is None:
        return None
    key = image.info.get("transparency")
    with again() as other:
        low = _loaded_as(other, lower).split()
    high = image.split()
    channels = [np.asarray(h).astype(np.uint16) << 8 | np.asarray(x) for h, x in zip(high, low, strict=True)]
    if isinstance(key, tuple) and len(channels) == 3:
        clear = np.logical_and.reduce([c == k for c, k in zip(channels, key, strict=True)])
        channels.append(np.where(clear, 0, 65535).astype(np.uint16))
    return _merged(channels)


def deep_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or of real numbers as 8 bits, with alpha where the file names a transparent grey.

    Numbers below zero make the least one black and the greatest one white.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        levels = _table(_white(int(values.max())))[values]
    else:
        levels = _scaled(np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0), image.mode == "F")
    grey = Image.fromarray(levels)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _scaled(values: Any, real: bool) -> Any:
    """Levels of 0 to 255 of wide integers or real numbers, float64."""
    darkest, brightest = float(values.min()), float(values.max())
    if darkest < 0:
        span = (brightest - darkest) or 1.0
        return ((values - darkest) / span * 255).round().astype(np.uint8)
    steps = (1, *WHITES) if real else WHITES
    white = next((s for s in steps if brightest <= s), brightest)
    return (values * (255 / white)).round().astype(np.uint8)


def _white(brightest: int) -> int:
    return next(w for w in WHITES if brightest <= w)


def _table(white: int) -> Any:
    """The level of 0 to 255 of every 16-bit number."""
    return (np.arange(65536).clip(0, white) * (255 / white)).round().astype(np.uint8)


def _merged(channels: list[Any]) -> Image.Image:
    """RGB or RGBA from 16-bit channels; the alpha has the colours' depth, or all 16 bits if it does not fit in."""
    white = _white(max(int(c.max()) for c in channels[:3]))
    tables = [_table(white)] * 3
    if len(channels) == 4:
        tables.append(_table(white if int(channels[3].max()) <= white else 65535))
    made = [Image.fromarray(table[channel]) for table, channel in zip(tables, channels, strict=True)]
    return Image.merge("RGBA" if len(made) == 4 else "RGB", made)


def _rawmode(tile: Any) -> str:
    """How a piece of the file is laid out, in Pillow's words."""
    given = tile[3]
    return str(given[0] if isinstance(given, tuple) and given else given)


def _loaded_as(image: Any, rawmode: str) -> Any:
    """Decode an opened picture as if its bytes were laid out in another way."""
    image.seek(0)
    image.tile = [
        (*tile[:3], (rawmode, *tile[3][1:]) if isinstance(tile[3], tuple) else rawmode) for tile in image.tile
    ]
    image.load()
    return image
