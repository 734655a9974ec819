r"""The number that an answer gives.

Read are: 1,234.5 | -5, minus 5 | 3/4, 2 1/2, \frac{3}{4}, a half sign | 45 %, 45 percent | $5, 5 cm, 90 degrees (signs and
units are left out) | 1.2e3, 1.2 x 10^3, 10^3 | 3.5 +- 0.1 (as 3.5) | twenty-one, two thirds (where there are no digits).

Rule, first that applies (on the part that answers, see plain.py): the whole answer is one number; the number in front, if a
reason follows ("12, because ...") and no "answer" is named; the first number behind the last "answer is", "Answer:", "=",
"therefore", "in total" and the like, unless "or" joins it to another one; the number that is all of the first line; the only
number of the last sentence; the number behind the only colon of the last line, at its end. Else there is no answer.
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
_UNIT = r"[^\w\n]*(?:(?!(?:or|and|to|but|plus|of)\b)[a-z°%²³^/]+\d?\s?){0,2}"
_REASONED = re.compile(
    rf"^{_UNIT}[\s,.;:()-]*(?:because|since|as (?:there|it|they|we|each|the)|due to|explanation|reason(?:ing)?|justification)\b",
    re.I,
)
_FIRST_LINE = re.compile(rf"^{_UNIT}[^\w\n]*\n\s*[a-z]", re.I)
_AFTER_COLON = re.compile(r"^[^:\n]*[a-z)]:\s*[^\w:\n-]*(?P<number>[-+]?[\d.][^:,\n]*)$", re.I)
_TOLERANCE = re.compile(r"\s*(?:±|\+\s?/\s?-|\\pm\b)\s*\d+(?:\.\d+)?")
_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5}
_PART = re.compile(r"\b(?:(\d+) and )?(\d+|an?) (half|halve|third|quarter|fourth|fifth)s?\b", re.I)
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
    start, end, first = found[0]
    in_front = not re.search(r"\w", text[:start])
    if in_front and _REASONED.match(text[end:]) and not re.search(r"\banswer\b", text, re.I):
        return first
    stated = _stated(text, found)
    if stated is not None:
        return stated or None
    return first if in_front and _FIRST_LINE.match(text[end:]) else _last(text)


def _stated(text: str, found: list[tuple[int, int, str]]) -> str | None:
    """The number of the last statement; "" means that it gives none."""
    for mark in reversed(list(_STATED.finditer(text))):
        behind = [n for n in found if n[0] >= mark.end()]
        if not behind or re.search(r"[.!?]\s|\n\n", text[mark.end() : behind[0][0]]):
            continue
        if _OPERATOR.match(text[behind[0][1] :]):  # "8 = 5 + 3" says 8, "it is 5 + 3" says nothing yet
            before = [n for n in found if n[1] <= mark.start()]
            return before[-1][2] if mark[0] == "=" and before else ""
        return "" if _OR.match(text[behind[0][1] :]) else behind[0][2]
    return None


def _last(text: str) -> str | None:
    """The number of the last sentence, or behind the last line's colon."""
    last = re.split(r"(?<=[^\d])[.!?]\s+|[.!?]\s+(?=[A-Z])|\n", text.strip())[-1]
    match = _AFTER_COLON.match(last)
    for said in (last, match["number"] if match else ""):
        if len(values := {value for _, _, value in _numbers(said)}) == 1:
            return values.pop()
    return None


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
    text = _TOLERANCE.sub("", plain(part or ""))
    text = re.sub(r"\b(?:minus|negative)\s+(?=[\d.])", "-", re.sub(r"[€£¥₹]|\b(?:USD|EUR)\s?(?=\d)", "", text))
    if re.search(r"\d", text):
        return text
    return re.sub(r"\b(?:minus|negative)\s+(?=\d)", "-", _PART.sub(_part, digits(text)))


def _part(match: re.Match[str]) -> str:
    """ "2 thirds", "3 and a half" in digits."""
    over = match[2] if match[2].isdigit() else "1"
    return f"{match[1] or ''} {over}/{_PARTS[match[3].lower()]}".strip()


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
