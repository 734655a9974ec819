"""Comparing what was said with what an option says: number words, articles, negations, refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .expressions import linear
from .plain import plain

_UNITS = [
    *(
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
    ),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {w: i for i, w in enumerate(_UNITS)} | {w: 20 + 10 * i for i, w in enumerate(_TENS)}
_WORD = "|".join([*_TENS, *reversed(_UNITS), "hundred", "thousand", "million"])
NUMBER_WORDS = rf"(?:{_WORD})(?:(?:\s+and\s+|[\s-]+)(?:{_WORD}))*"
_RUN = re.compile(rf"(?<![\w-]){NUMBER_WORDS}(?![\w-])", re.I)

REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|could not|couldn't|unable to|not able to|impossible to|not possible to|no way to)\s+"
    r"(?:\w+\s+){0,2}?(?:determine|tell|say|answer|see|view|process|identify|help|assist|provide|know|be|access|decide|analyze)"
    r"|\b(?:do not|don't|did not|didn't) know\b|\bnot (?:entirely |completely |really )?(?:sure|certain|clear)\b|\bunsure\b"
    r"|\b(?:is|it's|are|remains?) unclear\b|\bno idea\b|\b(?:insufficient|not enough) information\b|\bi'?m sorry\b|^sorry\b",
    re.I,
)
_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|no|without|except|excluding|excludes?|eliminates?|eliminated|rejects?|rejected|cannot|unlike"
    r"|rules? out|ruled out|rather than|instead of|as opposed to)|n't)\s+(?:\w+\s+){0,2}[(\[\"']*$",
    re.I,
)
_NOT_ANY = re.compile(
    r"(?:\b(?:not|neither|never)|n't)\s([\w'() -]{1,40}(?:,\s[\w'() -]{1,30}){0,6},?\s(?:or|nor)\s[\w'()-]+(?:\s[\w'()-]+)?)",
    re.I,
)
_AFTER = re.compile(
    r"^[)\]\"'.:]*\s*(?:\([^)]*\)\s*)?(?:(?:is|are|was|were|seems|looks|would be|can be|must be)(?:\s+(?:also|clearly|then))?\s+"
    r"(?:not|wrong|incorrect|false|eliminated|excluded|out|unlikely|ruled out)\b|(?:isn't|aren't|wasn't|can't|cannot|does not"
    r"|doesn't)\b)",
    re.I,
)


def digits(text: str) -> str:
    """Number words as digits: "twenty-one" -> "21"."""

    def value(match: re.Match[str]) -> str:
        total = part = 0
        for word in re.split(r"[\s-]+", match[0].lower()):
            if word == "hundred":
                part = max(part, 1) * 100
            elif word in ("thousand", "million"):
                total, part = total + max(part, 1) * (1000 if word == "thousand" else 10**6), 0
            else:
                part += _SMALL.get(word, 0)
        return str(total + part)

    return _RUN.sub(value, text)


def _in_a_line(text: str) -> str:
    """TeX in a line, without brackets around what is no sum."""
    if "\\" in text:
        text = linear(text, spaces=False)
        for _ in range(2):
            text = re.sub(r"\(([\w.√/]{1,12})\)", r"\1", text)
    return text


def canonical(text: str) -> str:
    """For comparing texts: plain, lower case, without articles, end marks, commas between thousands; numbers as digits."""
    text = digits(plain(_in_a_line(text))).lower()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", re.sub(r"(?<=\d)(?=[a-z])", " ", text))
    text = re.sub(r"\s*%", "%", re.sub(r"\s+", " ", text)).strip(" .,;:!?\"'()[]{}")
    return re.sub(r"^(?:an?|the) (?=\S)", "", text).strip()


def mentions(text: str, options: Mapping[str, str]) -> list[tuple[int, int, str]]:
    """(start, end, letter) of the options whose text a canonical text holds as whole words; longer texts come first.

    "dark red" is no mention of an option "red" where another option says "dark red". Left out: what is negated, and
    options that are a single letter, a picture, or the same as another one.
    """
    texts = {letter: canonical(option) for letter, option in options.items()}
    results: list[tuple[int, int, str]] = []
    taken: list[tuple[int, int]] = []
    for letter, option in sorted(texts.items(), key=lambda pair: -len(pair[1])):
        if not telling(option) or list(texts.values()).count(option) > 1:
            continue
        pattern = rf"(?<![\w/-])(?<!\d[.,]){re.escape(option)}(?![\w/-])(?![.,]\d)(?!%|'\w)"
        for match in re.finditer(pattern, text):
            if not any(a < match.end() and match.start() < b for a, b in taken):
                taken.append(match.span())
                if not negated(text, *match.span()):
                    results.append((*match.span(), letter))
    return sorted(results)


def telling(option: str) -> bool:
    """Can a canonical option be recognised by its text?"""
    return bool(re.search(r"\w", option)) and not re.fullmatch(r"[a-z]|<?image \d+>?", option)


def negated(text: str, start: int, end: int) -> bool:
    """Is what stands there denied: "not X", "X is wrong"?"""
    before = text[max(0, start - 90) : start]
    if any(m.start(1) <= len(before) < m.end(1) for m in _NOT_ANY.finditer(before + text[start : end + 60])):
        return True
    clause = re.split(r"[.;,!?:\n]|\bbut\b", text[max(0, start - 60) : start])[-1]
    return bool(_BEFORE.search(clause) or _AFTER.search(text[end : end + 60]))
