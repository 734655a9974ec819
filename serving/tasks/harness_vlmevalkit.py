"""How VLMEvalKit reads answers by exact matching, without its judge, for comparing with its numbers; written from a
description of its rules, 2026-08. What it would hand to a judge gives no answer here, as under its own `exact_matching`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

VERSION = "vlmevalkit/2026-08"

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_REFUSALS = (
    "Failed to obtain answer via API",
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_VERBOSE = re.compile(r"(?i)answer\s+is\s+\**([ABCD])\**")


def yes_or_no(response: str) -> str | None:
    """The one of the words yes and no that occurs, punctuation removed; None for both or neither."""
    low = response.lower()
    text, comma = low, re.search(r"\d,\d", low) is not None
    for mark in _PUNCTUATION:
        gone = comma or f"{mark} " in low or f" {mark}" in low
        text = text.replace(mark, "" if gone else " ")
    words = re.sub(r"\.(?!\d)", "", text, count=32).split()  # 32: a flag that it hands over as a count
    said = [word for word in ("yes", "no") if word in words]
    return said[0] if len(said) == 1 else None


def infer(response: str, options: Mapping[str, str]) -> str | None:
    """The one letter that occurs as a word among the last four; else "answer is X"; else the one option that occurs."""
    if any(refusal in response for refusal in _REFUSALS):
        return _by_text(response, options) if _REFUSALS[0] in response else None
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", response).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and "Z" in words:
        return None
    match = _VERBOSE.search(response)
    if match and match[1].upper() in options:
        return match[1].upper()
    return _by_text(response, options)


def _by_text(response: str, options: Mapping[str, str]) -> str | None:
    low = response.lower()
    if len(low) > 2 * sum(map(len, options.values())):
        return None
    said = [letter for letter, option in options.items() if option.lower() in low]
    return said[0] if len(said) == 1 else None


def prefetched(response: str, kind: str, choices: Sequence[str], gold: str) -> str | None:
    """MathVista before its judge is asked: a choice that can be inferred, or a number that is already right."""
    if choices:
        letter = infer(response, dict(zip("ABCDEFGHIJ", choices, strict=False)))
        return choices[ord(letter) - 65] if letter else None
    try:
        if kind == "integer":
            return gold if int(response) == int(gold) else None
        if kind == "float":
            return gold if float(response) == float(gold) else None
    except ValueError:
        pass
    return gold if kind not in ("integer", "float") and response == gold else None
