"""What a response repeats of the question: the list of options, the row of their letters."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .plain import plain

_ASKED = re.compile(
    r"(?<![\w])(?:is it |should it be |which is it[,:]? )?\(?[A-Z]\)?(?:,\s\(?[A-Z]\)?)*,?\s(?:or|vs\.?|versus)\s"
    r"\(?[A-Z]\)?\s?\?",
    re.I,
)
_HEADING = r"(?:(?:the )?(?:options|choices|answer choices)(?: are)?\s*:?\s*)?"


def without_lists(text: str, options: Mapping[str, str]) -> str:
    """The text without what only repeats all options in their order, if something is left of it.

    That is the list of letters and texts ("A. red B. blue ...") and the row of letters ("A, B, C or D?"), also of some of them
    where they are a question.
    """
    if len(options) < 2:
        return text
    left = text
    for pattern in (_listed(options), _row(options), _ASKED):
        left = pattern.sub(" ", left) if pattern else left
    return left.strip() if re.search(r"\w", left) else text


def _listed(options: Mapping[str, str]) -> re.Pattern[str] | None:
    texts = [re.escape(" ".join(plain(t).split())[:200]).replace(r"\ ", r"\s+") for t in options.values()]
    if not all(texts):
        return None
    items = r"[\s,;|.]{0,5}".join(
        rf"[(\[]?{letter}[).:\]]{{0,2}}\s{{0,3}}{text}" for letter, text in zip(options, texts, strict=True)
    )
    return re.compile(rf"{_HEADING}(?<![\w]){items}(?!\w)\.?", re.I)


def _row(options: Mapping[str, str]) -> re.Pattern[str]:
    joint = r"[\s,/|]{0,3}(?:or\s|and\s)?\s?"
    letters = joint.join(rf"\(?{letter}\)?" for letter in options)
    named = r"(?:[Oo]ptions|[Cc]hoices)(?: are| were)?\s?:?\s?"
    return re.compile(rf"{named}\(?{letters}\)?\s?\.|(?<![\w])\(?{letters}\)?\s?(?:\?|(?<=\)):?|:)(?!\w)")
