"""What another program's exception says, in one line."""

from __future__ import annotations

import re

from .shown import LONGEST as WORD
from .shown import shown

LONGEST = 200


def cause(error: BaseException) -> str:
    """First line of an exception's message, with what it announces, else the name of the exception's kind.

    Long words, such as a picture's base64 text, are cut in the middle.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    announced = lines[1] if lines[0].endswith(":") and len(lines) > 1 else ""
    return short_words(f"{lines[0]} {announced}").strip()[:LONGEST]


def short_words(text: str) -> str:
    """A text whose words are none longer than what messages show of a value."""
    return re.sub(rf"\S{{{WORD + 1},}}", lambda word: shown(word[0]), text)
