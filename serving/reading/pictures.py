"""A picture as rows hold it, in any writing: file name, bytes, base64 text, data URL, dict, list of one, array, PIL's own.

`picture_of` brings it into one of three forms; everything behind it knows only those. Nothing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image

from ...patches.errors import LostattnError
from ..cause import cause
from ..images import open_image, upright_rgb
from ..shown import shown

Picture = bytes | str | Image.Image  # content, name of a file, or opened

# fields of a dict that may hold the picture, the surest first: of `datasets`, of chat messages, of folders of pictures
KEYS = ("bytes", "base64", "data", "image_url", "url", "source", "image", "path", "file_name", "filename")
NEEDED = "give a file name, the file's bytes or base64 text, or a list with one of them"
DEPTH = 8
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")


def picture_of(value: Any, folder: Path = Path(), depth: int = 0) -> Picture | None:
    """The one picture in a field of a row, unopened; None if there is nothing in it.

    Args:
        folder: what file names are relative to; a name that exists there is a file whatever else it looks like.

    Raises:
        LostattnError: several pictures, a URL, damaged text, or something that is no picture; the row is not named.
    """
    if depth > DEPTH:
        raise LostattnError(f"the image is nested more than {DEPTH} deep: {NEEDED}")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value) or None
    if isinstance(value, str | Path):
        return _of_text(str(value), folder)
    if isinstance(value, Mapping):
        return _of_dict(value, folder, depth)
    if isinstance(value, Sequence):
        return _of_list(value, folder, depth)
    if hasattr(value, "__array__"):
        return _of_array(np.asarray(value), folder, depth)
    raise _no_picture(value)


def open_picture(value: Any, folder: Path = Path()) -> Image.Image:
    """The one picture in a field of a row, as RGB; LostattnError says what keeps it from being opened."""
    result = picture_of(value, folder)
    if result is None:
        raise LostattnError(f"there is no picture in {shown(value)!r}: {NEEDED}")
    if isinstance(result, bytes):
        return open_image(result)
    if isinstance(result, str):
        return _open_file(folder / result)
    try:
        return upright_rgb(result)
    except LostattnError:
        raise
    except Exception as error:  # an image of PIL reads its file only now
        raise LostattnError(f"the image cannot be read ({shown(cause(error))}): it is cut off or damaged") from error


def picture_size(value: Any, folder: Path = Path()) -> tuple[int, int]:
    """(width, height) by the picture's header; whatever keeps it from being read is raised."""
    result = picture_of(value, folder)
    if isinstance(result, Image.Image):
        return result.size
    with Image.open(io.BytesIO(result) if isinstance(result, bytes) else folder / str(result)) as image:
        return image.size


def file_name_of(value: Any) -> str:
    """The name that a row gives its picture; "" if it gives none."""
    if isinstance(value, list | tuple) and len(value) == 1:
        return file_name_of(value[0])
    if isinstance(value, Mapping):
        return next((v for k in ("path", "file_name", "filename") if isinstance(v := value.get(k), str)), "")
    return value if isinstance(value, str) else ""


def _no_picture(value: Any) -> LostattnError:
    return LostattnError(f"the image is {shown(value)}: {NEEDED}")


def _of_dict(value: Mapping[str, Any], folder: Path, depth: int) -> Picture | None:
    there = [key for key in KEYS if key in value]
    if not there:
        raise _no_picture(dict(value))
    for key in there:
        if isinstance(value[key], int | float) and value[key] == value[key]:
            raise _no_picture(dict(value))
        if (result := picture_of(value[key], folder, depth + 1)) is not None:
            return result
    return None


def _of_list(value: Sequence[Any], folder: Path, depth: int) -> Picture | None:
    if _is_number(value):
        return _of_numbers(value, folder, depth)
    results = [p for one in value if (p := picture_of(one, folder, depth + 1)) is not None]
    if len(results) > 1:
        raise LostattnError(f"the image is a list of {len(results)} pictures: give one picture in each row")
    return results[0] if results else None


def _is_number(value: Any) -> bool:
    """Whether the first thing in nested lists is a number: they are bytes or pixels then."""
    for _ in range(DEPTH):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
            break
        value = value[0]
    return isinstance(value, int | float | np.number)


def _of_numbers(value: Sequence[Any], folder: Path, depth: int) -> Picture | None:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        raise _no_picture(value) from None
    if array.ndim == 1 and len(array) < 16:  # no picture's file is as short
        raise _no_picture(value)
    return _of_array(array, folder, depth)


def _of_array(array: np.ndarray, folder: Path, depth: int) -> Picture | None:
    if array.dtype == object or array.dtype.kind in "US":
        return _of_list(array.reshape(-1).tolist(), folder, depth + 1)
    if array.size == 0:
        return None
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    deep = array.dtype == np.uint16 and int(array.max()) > 255
    if array.dtype.kind in "iu" and not deep and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 1 and array.dtype == np.uint8:
        return array.tobytes()
    grey, colours = array.ndim == 2, array.ndim == 3 and array.shape[2] in (3, 4)
    if not (array.dtype == np.uint8 and (grey or colours)) and not (deep and grey):
        raise LostattnError(
            f"the image is an array of {array.dtype} of shape {array.shape}: give uint8 of (height, width) or "
            "(height, width, 3)"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _of_text(text: str, folder: Path) -> Picture | None:
    bare = text.strip()
    if not bare:
        return None
    if bare[:5].lower() == "data:":
        return _of_data_url(bare)
    if _URL.match(bare):
        raise LostattnError(f"the image is the URL {shown(bare)}, and nothing is fetched: give the file itself")
    if _is_file(folder, text):
        return text
    return _of_base64(bare) or text


def _of_data_url(text: str) -> bytes:
    head, comma, body = text.partition(",")
    if not comma:
        raise LostattnError(f"the image is the data URL {shown(text)} without a comma: write data:image/png;base64,...")
    if head.lower().rstrip().endswith(";base64"):
        return _decoded(unquote_to_bytes(body).decode("ascii", "replace") if "%" in body else body)
    return unquote_to_bytes(body)


def _of_base64(text: str) -> bytes | None:
    """The bytes if this is base64 text of a picture's file, with or without padding, with or without line breaks."""
    if len(text) < 32 or not _BASE64.fullmatch(text):
        return None
    start = "".join(text[:80].split())[:32]
    if len(start) < 32 or not _begins_picture(_decoded(start)):
        return None
    return _decoded(text)


def _decoded(text: str) -> bytes:
    """The bytes of base64 text in either alphabet."""
    plain = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise LostattnError(f"the image is damaged base64 text ({shown(text)}): encode the file again") from None


def _begins_picture(start: bytes) -> bool:
    """Whether a file that begins so is of a kind that Pillow knows by its first bytes."""
    Image.init()
    return any(accept is not None and accept(start[:16]) for _, accept in Image.OPEN.values())


def _is_file(folder: Path, name: str) -> bool:
    if len(name) > 4096:
        return False
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _open_file(path: Path) -> Image.Image:
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise LostattnError(f"image {shown(str(path))} is no ordinary file: give a picture file")
        return open_image(path)
    except FileNotFoundError as error:
        raise LostattnError(f"image {shown(str(path))} does not exist: check the path") from error
    except LostattnError as error:
        raise LostattnError(str(error).replace(str(path), shown(str(path)))) from error
    except (OSError, ValueError) as error:
        what = f"image {shown(str(path))} is neither a file nor a picture as base64 text"
        raise LostattnError(f"{what} ({shown(cause(error), 40)}): check that field") from error
