"""Answers to open questions as a short text, and whether such a text says the same as the gold answer.

Rule: the marked answer (decide.py), else what stands behind the last "answer is", else all of it; without case, articles and end
marks, TeX in a line. No answer is an empty one or a refusal. It is right if it equals the gold answer; if it is a sentence that
ends in it ("The truck is red" for "red"); for a number, yes or no if this is the one that it holds ("3 cars", "Yes, there is").
"""

from __future__ import annotations

import re

from .expressions import linear
from .languages import in_english, spaced
from .numerals import number, numbers, value
from .plain import answer_part, plain
from .wording import REFUSAL, canonical
from .yesno import yes_or_no

VERSION = "text/1"

_ANSWER_IS = re.compile(r"\b(?:answer|result)\b[^.\n]{0,40}?(?:\bis\b|:)\s*", re.I)
_NONE = re.compile(r"^(?:i )?(?:do not|don't|cannot|can't) \w+|^(?:unknown|unclear|n/?a|not sure|no idea)$")
_UNTIL_IS = (
    r"[^.;!?\n]{1,80}?\b(?:is|are|was|were|looks|reads|says|shows|called|be|named|as|appears to be)\s+"
    r"(?:(?:an?|the|clearly|probably|likely|labell?ed)\s+)*[\"']?"
)


def open_answer(response: str) -> str | None:
    """The short text that an open question was answered with, or None."""
    text = plain(linear(answer_part(response) or "", spaces=False))
    if not re.search(r"\w", text) or REFUSAL.search(text):
        return None
    text = text if text.isascii() else in_english(spaced(text), answers=True)
    tail = _ANSWER_IS.split(text)[-1]
    said = canonical(tail if re.search(r"\w", tail) else text)
    return None if _NONE.match(said) else said or None


def same(answer: str, gold: str) -> bool:
    """Does an open answer say what the gold answer says?"""
    wanted = canonical(plain(linear(gold, spaces=False)))
    if answer == wanted:
        return True
    if wanted in ("yes", "no"):
        return yes_or_no(answer) == wanted
    if re.fullmatch(r"-?\d+(\.\d+)?", wanted):
        return _same_number(answer, wanted)
    ending = re.fullmatch(rf"{_UNTIL_IS}{re.escape(wanted)}[\"']?(?: in (?:the )?colou?r)?", answer)
    return bool(ending) and not re.search(r"\b(?:not|or|never)\b|n't\b", answer)


def _same_number(answer: str, wanted: str) -> bool:
    """One number is held, or stated, and it is the wanted one."""
    held = {value(n) for n in numbers(answer)}
    if len(held) == 1:
        return held == {float(wanted)}
    said = number(answer)
    return said is not None and value(said) == float(wanted)
