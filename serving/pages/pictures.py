"""Pictures inside a page, as data URLs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

SIDE, TINY = 420, 200  # pixels


def thumbnail(picture: Image.Image | str) -> tuple[str, bool]:
    """A small picture as a data URL, and whether it is so small that its pixels should be shown as they are.

    Args:
        picture: opened, or a data URL already, which stays as it is.
    """
    if isinstance(picture, str):
        return picture, False
    exact = max(picture.size) <= TINY * 2
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG" if exact else "JPEG", **({"optimize": True} if exact else {"quality": 82}))
    return _url("png" if exact else "jpeg", buffer.getvalue()), max(picture.size) <= TINY


def png_url(path: Path) -> str:
    """A PNG file as a data URL."""
    return _url("png", path.read_bytes())


def _url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
