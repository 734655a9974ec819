r"""The number that an answer gives.

Read are: 1,234.5, 12 500, 12'500, 12{,}500 | -5, minus 5 | 3/4, 2 1/2, \frac{3}{4}, \frac12, a half sign | 45 %, 45 percent |
$5, 5 cm, 90 degrees (signs and units are left out) | 1.2e3, 1.2 x 10^3, 10^3 | 5K, 1.2M, 3 million | 3.5 +- 0.1 (as 3.5) |
twenty-one, two thirds (where there are no digits, or behind "the answer is"). 3\sqrt{2}, 2\pi and 5! are their values; no
number is taken out of 7x, x^2 or \log 3 (expressions.py).

Rule, first that applies (on the part that answers, see decide.py): the whole answer is one number; the number in front, if a
reason follows ("12, because ...") and no "answer" is named; the first number behind the last "answer is", "Answer:", "=",
"therefore", "in total" and the like, unless "or" joins it to another one; the number that is all of the first line; the only
number of the last sentence; the number behind the only colon of the last line, at its end. Else there is no answer.
"""

from __future__ import annotations

import math
import re

from .decide import Reader, read
from .expressions import OPAQUE, evaluated, linear, resolved, written
from .languages import in_english, spaced
from .plain import answer_part, plain
from .wording import NUMBER_WORDS, digits

VERSION = "numerals/2"

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w.)\]%])[-+])?(?<![\w.^])(?:(?P<whole>\d+)\s+(?=\d+\s*/\s*\d))?(?P<value>{_PLAIN})"
    r"(?:[eE](?P<e>[-+]?\d+)|\s?[×xX*]\s?10\s?\^\s?\(?(?P<ten>[-+]?\d+)\)?|\^(?P<power>-?\d+))?"
    r"(?:\s*/\s*(?P<under>\d+(?:\.\d+)?))?(?P<percent>\s?%|\s?per ?cent\b)?(?![\d])"
    r"(?:\s?(?P<many>(?i:thousand|million|billion|trillion|lakh|crore|bn\b|mn\b)|万|萬|亿|億|만|억)(?![a-z])|(?P<short>[KkMB])(?!\w))?"
)
_STATED = re.compile(
    r"\b(?:answer|result|total|solution|value|count|number|sum|difference)\b[^.\n=:]{0,80}?"
    r"(?:\bis\b|\bare\b|\bequals\b|\bwould be\b|:|=)"
    r"|\bis\b(?! not\b)|\b(?:so|thus|therefore|hence|in total|altogether|overall|approximately equal to|equals|gives|answer)\b"
    r"|=|≈",
    re.I,
)
_FINAL = re.compile(
    r"\banswer\b[^.\n=:]{0,80}?(?:\bis\b|\bare\b|\bequals\b|\bwould be\b|:|=)"
    r"|\b(?:therefore|thus|hence|finally)\b[^.\n]{0,80}?(?:\bis\b|\bare\b|\bequals\b|=|≈|:)",
    re.I,
)
_SAID_IN_WORDS = re.compile(
    r"(?:(?:\b(?:answer|total|count|result|sum|number)\b[^.\n\d]{0,60}?(?:\bis\b|\bare\b|:|=)|^)\W{0,5}"
    rf"(?:(?:exactly|about|approximately|only|just) )?)(?P<words>{NUMBER_WORDS})(?=\W|$)(?!\W{{1,3}}(?:of|more|less|half)\b)",
    re.I,
)
_UNIT = r"[^\w\n]*(?:(?!(?:or|and|to|but|plus|of)\b)[a-z°%²³^/]+\d?\s?){0,2}"
_REASONED = re.compile(
    rf"^{_UNIT}[\s,.;:()-]*(?:because|since|as (?:there|it|they|we|each|the)|due to|explanation|reason(?:ing)?|justification)\b",
    re.I,
)
_ITS_PARTS = re.compile(rf"^{_UNIT}[^\w\n]*(?:made up )?(?:of )?(?=\d)", re.I)
_FIRST_LINE = re.compile(rf"^{_UNIT}[^\w\n]*\n\s*[a-z]", re.I)
_AFTER_COLON = re.compile(r"^[^:\n]*[a-z)]:\s*[^\w:\n-]*(?P<number>[-+]?[\d.][^:,\n]*)$", re.I)
_TOLERANCE = re.compile(r"\s*(?:±|\+\s?/\s?-|\\pm\b)\s*\d+(?:\.\d+)?")
_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5}
_PART = re.compile(r"\b(?:(\d+) and )?(\d+|an?) (half|halve|third|quarter|fourth|fifth)s?\b", re.I)
_VARIABLE_BEFORE = re.compile(rf"(?:(?<!\w)[b-hj-zB-HJ-Zθ]|{OPAQUE})\s?[-+×*/]\s?$")
_VARIABLE_AFTER = re.compile(rf"\s?[-+×*/]\s?(?:[xyznbckmrθ](?![\w'/.])|{OPAQUE})")
_ASKED = re.compile(r"(?:[^\n?]{10,400}\?\s{1,9})+(?:A\s?:\s*)?(?=\S)")
_DOZEN = re.compile(r"\b(?:an?\s|(\d{1,3})\s)?dozen\b", re.I)
_OPERATOR = re.compile(rf"^\s*[+×*/÷-]\s*[\d{OPAQUE}]")
_MANY = {
    **{
        "thousand": 1e3,
        "million": 1e6,
        "billion": 1e9,
        "trillion": 1e12,
        "lakh": 1e5,
        "crore": 1e7,
        "bn": 1e9,
        "mn": 1e6,
    },
    **{
        "万": 1e4,
        "萬": 1e4,
        "만": 1e4,
        "亿": 1e8,
        "億": 1e8,
        "억": 1e8,
        "K": 1e3,
        "k": 1e3,
        "M": 1e6,
        "B": 1e9,
        "": 1.0,
    },
}
_OR = re.compile(r"^\s*(?:[a-z°%]+\s*)?(?:or|and)\s+(?:about\s+)?[-+]?\d", re.I)


def numbers(text: str) -> list[str]:
    """All numbers of a plain text, each written as Python does; "%" behind those in percent."""
    return [value for _, _, value in _numbers(resolved(text)) if value]


def number(response: str) -> str | None:
    """The number that the response gives as its answer, or None."""
    return read(response, Reader(_whole, _final, lambda text: _stated(*_found(text), _STATED)))


def readable(text: str) -> str:
    """A text with its numbers in digits and its expressions as their values."""
    return _prepared(text)


def _found(text: str) -> tuple[str, list[tuple[int, int, str]]]:
    prepared = _prepared(text)
    return prepared, _numbers(prepared)


def _final(text: str) -> str | None:
    return _stated(*_found(text), _FINAL)


def _whole(said: str) -> str | None:
    """The rule's steps; "" is a decision too: there are numbers, but none is the answer."""
    exact = evaluated(plain(linear(said)).strip(" ."))
    if exact is not None:
        return written(exact)
    text, result = _found(said)
    if not result:
        return None
    if len({value for _, _, value in result}) == 1:
        return result[0][2]
    start, end, first = result[0]
    in_front = not re.search(r"\w", text[:start])
    if in_front and _REASONED.match(text[end:]) and not re.search(r"\banswer\b", text, re.I):
        return first
    if (
        in_front
        and first
        and _ITS_PARTS.match(text[end:])
        and value(first) == sum(value(n or "nan") for _, _, n in result[1:])
    ):
        return first
    stated = _stated(text, result, _STATED)
    if stated is not None:
        return stated
    return (first if in_front and _FIRST_LINE.match(text[end:]) else _last(text)) or ""


def _stated(text: str, found: list[tuple[int, int, str]], cues: re.Pattern[str]) -> str | None:
    """The number of the last statement; "" means that it gives none."""
    for mark in reversed(list(cues.finditer(text))):
        behind = [n for n in found if n[0] >= mark.end()]
        if not behind or re.search(r"[.!?]\s|\n\n", text[mark.end() : behind[0][0]]):
            continue
        if _OPERATOR.match(text[behind[0][1] :]):  # "8 = 5 + 3" says 8, "it is 5 + 3" says nothing yet
            before = [n for n in found if n[1] <= mark.start()]
            return before[-1][2] if mark[0] == "=" and before else ""
        return "" if _OR.match(text[behind[0][1] :]) and not _alike(behind[:2]) else behind[0][2]
    return None


def _alike(found: list[tuple[int, int, str]]) -> bool:
    """The same amount twice: "0.75 or 75%"."""
    amounts = {value(n) / (100 if n.endswith("%") else 1) for _, _, n in found if n}
    return len(amounts) == 1 and len(found) == 2


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
    text = _prepared(answer_part(response), spaces=False)
    lists = re.findall(r"[\[(]([^\[\]()]*)[\])]", text)
    plain_lists = [inside for inside in lists if not re.search(r"[a-z]{2}", inside)]
    held = [inner for inside in plain_lists if (inner := numbers(inside.replace(",", ", ")))]
    if held:
        return tuple(map(value, held[-1]))
    results = [n for n in _numbers(text) if n[2]]
    for mark in reversed(list(_STATED.finditer(text)) if results else []):
        if mark.end() <= results[-1][0]:
            return tuple(value(written) for start, _, written in results if start >= mark.end())
    return tuple(value(written) for _, _, written in results) or None


def value(text: str) -> float:
    """The value of what `numbers` gives; percents as they are written (45% -> 45)."""
    return float(text.rstrip("%"))


def _prepared(part: str | None, spaces: bool = True) -> str:
    text = _TOLERANCE.sub("", in_english(resolved(plain(linear(spaced(part or ""), spaces))), answers=True))
    text = re.sub(r"\b(?:minus|negative)\s+(?=[\d.])", "-", re.sub(r"[€£¥₹]|\b(?:USD|EUR)\s?(?=\d)", "", text))
    text = re.sub(r"^\s*-\s(?=[\d.,]+\W*$)", "-", text)
    if (asked := _ASKED.match(text)) and len(asked[0].split()) > 3 and re.search(rf"[\d{OPAQUE}]", text[asked.end() :]):
        text = text[asked.end() :]
    if re.search(rf"[\d{OPAQUE}]", text):
        return _SAID_IN_WORDS.sub(lambda m: m[0][: m.start("words") - m.start()] + digits(m["words"]), text)
    text = _DOZEN.sub(lambda m: f"{12 * int(m[1] or 1)}", digits(text))
    return re.sub(r"\b(?:minus|negative)\s+(?=\d)", "-", _PART.sub(_part, text))


def _in_expression(text: str, start: int, end: int) -> bool:
    """Is the number added to a variable or the like, or is its "k" one?"""
    return bool(
        _VARIABLE_BEFORE.search(text[max(0, start - 6) : start])
        or _VARIABLE_AFTER.match(text[end : end + 6])
        or (text[end - 1] == "k" and re.search(r"=\s?$", text[max(0, start - 3) : start]))
    )


def _part(match: re.Match[str]) -> str:
    """ "2 thirds", "3 and a half" in digits."""
    over = match[2] if match[2].isdigit() else "1"
    return f"{match[1] or ''} {over}/{_PARTS[match[3].lower()]}".strip()


def _numbers(text: str) -> list[tuple[int, int, str]]:
    results = [(at, at + 1, "") for at, character in enumerate(text) if character == OPAQUE]
    for match in _NUMBER.finditer(text):
        amount = float(match["value"].replace(",", ""))
        if match["under"]:
            if float(match["under"]) == 0:
                continue
            amount = float(match["whole"] or 0) + amount / float(match["under"])
        try:
            tens = int(match["e"] or match["ten"] or 0)
            amount = amount * 10.0**tens if tens >= 0 else amount / 10.0**-tens
            amount **= int(match["power"] or 1)
            amount *= _MANY[(match["many"] or "").lower() or match["short"] or ""]
        except (OverflowError, ZeroDivisionError, ValueError):
            continue
        if not math.isfinite(amount):
            continue
        if _in_expression(text, *match.span()):
            results.append((match.start(), match.end(), ""))
            continue
        amount = -amount if match["sign"] == "-" else amount
        digital = str(int(amount)) if amount == int(amount) and abs(amount) < 1e15 else repr(amount)
        results.append((match.start(), match.end(), digital + "%" * bool(match["percent"])))
    return sorted(results)
