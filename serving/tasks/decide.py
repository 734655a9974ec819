r"""Where in a response its answer is looked for; the same for letters, numbers, yes and no.

Rule: of the model's first turn without its thoughts (turns.py, markup.py) the last marked answer that can be read decides:
a tag, a `\boxed{}`. Only a final statement behind it ("Final answer: 144") outdoes it. Without a marked answer that can be
read, the whole turn is read. Of more than 8,000 characters the first 2,000 and the last 6,000 are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .markup import marks, unmarked, without_thoughts
from .turns import before_question, first_turn

_DEPTH = 3  # a box in a tag in a tag
_MARKS = 6  # marked answers tried, from the last


@dataclass(frozen=True)
class Reader:
    """How one kind of answer is read. Each returns the answer, "" for a statement that chooses none, None for nothing.

    Attributes:
        whole: a text as a whole.
        stated: only final statements, as "the answer is ...".
        rest: a text whose marked answers could not be read.
    """

    whole: Callable[[str], str | None]
    stated: Callable[[str], str | None]
    rest: Callable[[str], str | None]


def read(response: str, reader: Reader) -> str | None:
    """The answer of a response, or None."""
    text = first_turn(without_thoughts(response))
    front = before_question(text)
    result = _read(front, reader, 0)
    if result is None and front != text:
        result = _read(text, reader, 0)
    return result or None


def _read(text: str, reader: Reader, depth: int) -> str | None:
    if not text.strip():
        return None
    marked = marks(text) if depth < _DEPTH else []
    for mark in reversed(marked[-_MARKS:]):
        result = _read(mark.inside, reader, depth + 1)
        if result is not None:
            later = reader.stated(clipped(unmarked(text[mark.end :])))
            return result if later is None else later
    return (reader.rest if marked else reader.whole)(clipped(unmarked(text)))


def clipped(text: str) -> str:
    """The first 2,000 and the last 6,000 characters of a long text."""
    return text if len(text) <= 8000 else f"{text[:2000]}\n...\n{text[-6000:]}"


FINAL = re.compile(
    r"\b(?:final|correct|right)?\s*answer\b[^.\n:]{0,40}?(?:\bis\b|:|=)\s*(?=\S)|\bin (?:conclusion|short)\s*[,:]\s*",
    re.I,
)


def final_text(response: str) -> str | None:
    """The part that answers, as a text: the last marked answer, else what stands behind a final statement that follows it.

    None if there is nothing; a turn without a marked answer is taken as a whole.
    """
    text = before_question(first_turn(without_thoughts(response)))
    for _ in range(_DEPTH):
        marked = [m for m in marks(text) if re.search(r"\w", m.inside)]
        if not marked:
            break
        behind = text[marked[-1].end :]
        stated = list(FINAL.finditer(behind))
        text = behind[stated[-1].end() :] if stated else marked[-1].inside
    text = unmarked(text)
    return clipped(text) if text.strip() else None
