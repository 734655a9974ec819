"""Open questions of MMMU by the benchmark's own rule: pieces of the response, and whether a gold answer is among them.

The response, in lower case, is cut at line ends (the rule also means sentence ends, but looks for a capital behind the full
stop when there are none left, so it never cuts there). Of each piece that holds one of "could be", "so", "is", "thus",
"therefore", "final", "answer", "result" (in the last piece also "="), the shortest tail behind such a word is kept; if there is
none, the whole response. These tails and all numbers in them are the answer; numbers are rounded to two places. It is right
if a gold text is part of one of the texts, or a gold number equals one of the numbers.

`said` reads what a careful reader would: only what follows the last "the answer is"; the one number that numerals.py reads, and
only where it reads none all numbers, none of them out of an expression.
"""

from __future__ import annotations

import re

from .decide import FINAL
from .numerals import number, numbers, readable, value
from .plain import plain

VERSION = "mmmu-open/2"

_CUES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def pieces(response: str) -> tuple[str | float, ...]:
    """What a response to an open question says, sorted, so that it is the same in every run."""
    tails = _tails(response)
    parts = [*tails, *(number for tail in tails for pattern in _NUMBERS for number in pattern.findall(tail))]
    return tuple(sorted({form for text in parts for form in normal_forms(text)}, key=lambda x: (isinstance(x, str), x)))


def said(part: str) -> tuple[str | float, ...]:
    """What the part that answers says: its texts by the benchmark's rule, its numbers as they are meant."""
    stated = list(FINAL.finditer(part))
    part = part[stated[-1].end() :] if stated and re.search(r"\w", part[stated[-1].end() :]) else part
    texts = {piece for form in (part, plain(part), readable(part)) for piece in pieces(form) if isinstance(piece, str)}
    one = number(part)
    held = [one] if one is not None else [n for tail in _tails(readable(part)) for n in numbers(tail)]
    results = {round(value(n), 2) for n in held}
    return tuple(sorted({*texts, *results}, key=lambda x: (isinstance(x, str), x)))


def holds(said: tuple[str | float, ...], gold: tuple[str, ...]) -> bool:
    """Is one of the gold answers among the pieces?"""
    wanted = {form for text in gold for form in normal_forms(text)}
    texts = [w for w in wanted if isinstance(w, str)]
    return any(any(t in p for t in texts) if isinstance(p, str) else p in wanted for p in said)


def normal_forms(text: str) -> list[str | float]:
    """A number rounded to two places; else the text in lower case, a single letter with a space on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _tails(response: str) -> list[str]:
    whole = response.strip().strip(".").lower()
    parts = whole.split("\n")
    tails = []
    for position, part in enumerate(parts):
        cues = (*_CUES, "=") if position == len(parts) - 1 else _CUES
        behind = [part.split(cue)[-1].strip() for cue in cues if cue in part]
        shortest = ""
        for tail in behind:  # an empty tail is replaced by the next one, as the rule has it
            shortest = tail if not shortest or len(tail) < len(shortest) else shortest
        if shortest and shortest not in _TRIVIAL:
            tails.append(shortest)
    return tails or [whole]
