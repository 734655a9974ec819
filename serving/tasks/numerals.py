r"""The number that an answer gives.

Read are: 1,234.5 | -5, minus 5 | 3/4, 2 1/2, \frac{3}{4}, a half sign | 45 %, 45 percent | $5, 5 cm, 90 degrees (signs and
units are left out) | 1.2e3, 1.2 x 10^3, 10^3 | twenty-one (where there are no digits).

Rule, first that applies (on the part that answers, see plain.py): the whole answer is one number; the first number behind
the last "answer is", "Answer:", "=", "therefore", "in total" and the like, unless "or" joins it to another one; the only number
of the answer; the only number of its last sentence. Else there is no answer.
"""

from __future__ import annotations

import math
import re

from .plain import answer_part, plain
from .wording import digits

VERSION = "numerals/1"

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w.)\]%])[-+])?(?<![\w.^])(?:(?P<whole>\d+)\s+(?=\d+\s*/\s*\d))?(?P<value>{_PLAIN})"
    r"(?:[eE](?P<e>[-+]?\d+)|\s?[×xX*]\s?10\s?\^\s?\(?(?P<ten>[-+]?\d+)\)?|\^(?P<power>-?\d+))?"
    r"(?:\s*/\s*(?P<under>\d+(?:\.\d+)?))?(?P<percent>\s?%|\s?per ?cent\b)?(?![\d])"
    r"(?:\s(?P<many>thousand|million|billion|trillion)\b)?"
)
_STATED = re.compile(
    r"\b(?:answer|result|total|solution|value|count|number|sum|difference)\b[^.\n=:]{0,80}?"
    r"(?:\bis\b|\bare\b|\bequals\b|\bwould be\b|:|=)"
    r"|\bis\b(?! not\b)|\b(?:so|thus|therefore|hence|in total|altogether|overall|approximately equal to|equals|gives|answer)\b"
    r"|=|≈",
    re.I,
)
_OPERATOR = re.compile(r"^\s*[+×*/÷-]\s*\d")
_MANY = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_OR = re.compile(r"^\s*(?:[a-z°%]+\s*)?(?:or|and)\s+(?:about\s+)?[-+]?\d", re.I)


def numbers(text: str) -> list[str]:
    """All numbers of a plain text, each written as Python does; "%" behind those in percent."""
    return [value for _, _, value in _numbers(text)]


def number(response: str) -> str | None:
    """The number that the response gives as its answer, or None."""
    part = answer_part(response)
    text = _prepared(part)
    found = _numbers(text)
    if not found:
        return None
    if len({value for _, _, value in found}) == 1:
        return found[0][2]
    for mark in reversed(list(_STATED.finditer(text))):
        behind = [n for n in found if n[0] >= mark.end()]
        if not behind or re.search(r"[.!?]\s|\n\n", text[mark.end() : behind[0][0]]):
            continue
        if _OPERATOR.match(text[behind[0][1] :]):  # "8 = 5 + 3" says 8, "it is 5 + 3" says nothing yet
            before = [n for n in found if n[1] <= mark.start()]
            return before[-1][2] if mark[0] == "=" and before else None
        return None if _OR.match(text[behind[0][1] :]) else behind[0][2]
    last = re.split(r"(?<=[^\d])[.!?]\s+|[.!?]\s+(?=[A-Z])|\n", text.strip())[-1]
    said = {value for _, _, value in _numbers(last)}
    return said.pop() if len(said) == 1 else None


def number_list(response: str) -> tuple[float, ...] | None:
    """The numbers of the last bracketed list, else all numbers behind the last statement, else all of the answer."""
    text = _prepared(answer_part(response))
    lists = re.findall(r"[\[(]([^\[\]()]*)[\])]", text)
    plain_lists = [inside for inside in lists if not re.search(r"[a-z]{2}", inside)]
    held = [inner for inside in plain_lists if (inner := numbers(inside.replace(",", ", ")))]
    if held:
        return tuple(map(value, held[-1]))
    found = _numbers(text)
    for mark in reversed(list(_STATED.finditer(text)) if found else []):
        if mark.end() <= found[-1][0]:
            return tuple(value(written) for start, _, written in found if start >= mark.end())
    return tuple(value(written) for _, _, written in found) or None


def value(text: str) -> float:
    """The value of what `numbers` gives; percents as they are written (45% -> 45)."""
    return float(text.rstrip("%"))


def _prepared(part: str | None) -> str:
    text = plain(part or "")
    text = re.sub(r"\b(?:minus|negative)\s+(?=[\d.])", "-", re.sub(r"[€£¥₹]|\b(?:USD|EUR)\s?(?=\d)", "", text))
    return text if re.search(r"\d", text) else re.sub(r"\b(?:minus|negative)\s+(?=\d)", "-", digits(text))


def _numbers(text: str) -> list[tuple[int, int, str]]:
    found = []
    for match in _NUMBER.finditer(text):
        amount = float(match["value"].replace(",", ""))
        if match["under"]:
            if float(match["under"]) == 0:
                continue
            amount = float(match["whole"] or 0) + amount / float(match["under"])
        try:
            amount *= 10.0 ** int(match["e"] or match["ten"] or 0)
            amount **= int(match["power"] or 1)
            amount *= _MANY.get(match["many"] or "", 1.0)
        except (OverflowError, ZeroDivisionError, ValueError):
            continue
        if not math.isfinite(amount):
            continue
        amount = -amount if match["sign"] == "-" else amount
        written = str(int(amount)) if amount == int(amount) and abs(amount) < 1e15 else repr(amount)
        found.append((match.start(), match.end(), written + "%" * bool(match["percent"])))
    return found
