"""What messages show of a user's value: one short line, however long the value is."""

from __future__ import annotations

import reprlib

LONGEST = 80
_REPR = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = LONGEST


def shown(value: object, longest: int = LONGEST) -> str:
    """A value on one line of at most `longest` characters; texts without quotes, of long ones both ends.

    Example:
        >>> shown("/9j/" + "A" * 1000, 20)
        '/9j/AAAAA...AAAAAAAA'
    """
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    text = str(value[: 4 * longest] + value[-4 * longest :]) if isinstance(value, str) else _REPR.repr(value)
    if isinstance(value, str) and len(value) <= 8 * longest:
        text = value
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) <= longest:
        return text
    head = (longest - 3) // 2
    return f"{text[: longest - 3 - head]}...{text[-head:]}"
