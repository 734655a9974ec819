"""Data URLs (RFC 2397) as people and libraries write them: `data:image/png;base64,...`."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote

from ..patches.errors import LostattnError

EXAMPLE = "data:image/png;base64,..."
_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
_URL_SAFE = str.maketrans("-_", "+/")


def is_data_url(text: str) -> bool:
    """Whether a text begins as a data URL does, in any case and behind any white space."""
    return text[:100].lstrip()[:5].lower() == "data:"


def split_data_url(text: str) -> tuple[str, str]:
    """Media type and base64 of a data URL, the latter in the standard alphabet, padded, without white space.

    `data` and `base64` may be written in any case, parameters may stand between them; the base64 may be of the URL-safe
    alphabet, percent-encoded, broken into lines, without its padding.

    Raises:
        LostattnError: no comma, no base64, or base64 that is damaged.
    """
    head, comma, body = text.strip()[5:].partition(",")
    if not comma:
        raise LostattnError(f"a data URL needs a comma in front of its data: {EXAMPLE}")
    kind, *parameters = (part.strip() for part in unquote(head).split(";"))
    if "base64" not in (p.lower() for p in parameters):
        raise LostattnError(f"a data URL must be base64: {EXAMPLE}")
    body = "".join((unquote(body) if "%" in body else body).split()).translate(_URL_SAFE).rstrip("=")
    if not body:
        raise LostattnError(f"the data URL holds no data: {EXAMPLE}")
    if len(body) % 4 == 1 or _BASE64.fullmatch(body) is None:
        raise LostattnError("the base64 of the data URL is damaged or cut off: encode the picture again")
    return kind.lower(), body + "=" * (-len(body) % 4)


def read_data_url(text: str) -> bytes:
    """The bytes of a base64 data URL. LostattnError as in `split_data_url`."""
    try:
        return base64.b64decode(split_data_url(text)[1], validate=True)
    except binascii.Error as error:
        raise LostattnError("the base64 of the data URL is damaged: encode the picture again") from error
