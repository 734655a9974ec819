"""What a free answer says: a letter, yes or no, a number, or a text. Never a guess: what cannot be read is unparsed."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from ...patches.errors import LostattnError
from ..data import Example

PARSER = "lostattn 1"
LETTERS = string.ascii_uppercase
RULES = {
    "option": "the letter behind `answer is` or `Answer:`, alone, or in front (`B.`, `(B)`, `B:`); else the text of exactly one "
    "option; else the only letter in brackets",
    "yes_no": "the word yes or no, if only one of them occurs",
    "number": "the only number, or the one behind `answer is`, `Answer:` or the last `=`; compared as numbers",
    "text": "the whole answer without case, outer punctuation and articles",
}
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+"
_SAYS = r"(?i:answer\s*(?:is|:)|answer\s+would\s+be)\s*"


@dataclass(frozen=True)
class Expected:
    """What the data calls right: its kind decides how answers are read."""

    kind: str
    value: str
    options: tuple[str, ...] = ()


def expected(example: Example) -> Expected:
    """Kind and value of a row's answer.

    Raises:
        LostattnError: no answer, too many options, or an answer that is none of the options; the row is named.
    """
    answer = example.answer.strip()
    if not answer:
        raise LostattnError(f"row {example.row} has no answer: judging needs one in every row")
    if example.options:
        return Expected("option", _letter(example, answer), example.options)
    if answer.casefold() in ("yes", "no"):
        return Expected("yes_no", answer.casefold())
    if re.fullmatch(_NUMBER, answer):
        return Expected("number", _number(answer))
    return Expected("text", _plain(answer))


def _letter(example: Example, answer: str) -> str:
    if len(example.options) > len(LETTERS):
        raise LostattnError(
            f"row {example.row} has {len(example.options)} options: at most {len(LETTERS)} are possible"
        )
    known = LETTERS[: len(example.options)]
    bare = answer.strip("().: ").upper()
    if len(bare) == 1 and bare in known:
        return bare
    same = [k for k, option in zip(known, example.options, strict=True) if _plain(option) == _plain(answer)]
    if len(same) != 1:
        raise LostattnError(
            f"row {example.row}: the answer {answer!r:.60} is none of its options: give a letter of {known} or an option's text"
        )
    return same[0]


def parse(answer: str, wanted: Expected) -> str | None:
    """The answer in the form of `Expected.value`; None if it cannot be read as its kind."""
    text = answer.strip()
    if not text:
        return None
    return {"option": _option, "yes_no": _yes_no, "number": _only_number, "text": _text}[wanted.kind](text, wanted)


def _option(text: str, wanted: Expected) -> str | None:
    known = LETTERS[: len(wanted.options)]
    if found := re.search(rf"{_SAYS}\W*([{known}])\b", text):
        return found[1].upper()
    bracketed = sorted(set(re.findall(rf"\(([{known}])\)", text)))
    if len(bracketed) > 1:
        return None
    letter = f"[{known}{known.lower()}]"
    for pattern in (rf"\W*({letter})\W*", rf"\(?({letter})\s*[.):](?:\s.*)?", rf"\(({letter})\).*"):
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return found[1].upper()
    whole = [k for k, o in zip(known, wanted.options, strict=True) if _plain(o) == _plain(text)]
    return next((c[0] for c in (whole, _named(text, wanted.options), bracketed) if len(c) == 1), None)


def _named(text: str, options: tuple[str, ...]) -> list[str]:
    """Letters of the options whose text occurs, without those that are merely part of a longer one that occurs."""
    inside = [o for o in options if _contains(text, o)]
    longest = [o for o in inside if not any(o != p and _contains(p, o) for p in inside)]
    return [k for k, o in zip(LETTERS, options, strict=False) if o in longest]


def _contains(text: str, option: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(_plain(option))}(?!\w)", text.casefold()))


def _yes_no(text: str, _: Expected) -> str | None:
    found = set(re.findall(r"\b(yes|no)\b", text.casefold()))
    return found.pop() if len(found) == 1 else None


def _only_number(text: str, _: Expected) -> str | None:
    numbers = {_number(n) for n in re.findall(_NUMBER, text)}
    if len(numbers) == 1:
        return numbers.pop()
    for pattern in (rf"{_SAYS}\D{{0,3}}?({_NUMBER})", rf"=\s*({_NUMBER})"):
        if said := re.findall(pattern, text):
            return _number(said[-1])
    return None


def _number(text: str) -> str:
    return f"{float(text.replace(',', '')):.12g}"


def _text(text: str, _: Expected) -> str | None:
    return _plain(text) or None


def _plain(text: str) -> str:
    words = " ".join(text.casefold().split()).strip(string.punctuation + " ")
    return re.sub(r"^(?:a|an|the) ", "", words)
