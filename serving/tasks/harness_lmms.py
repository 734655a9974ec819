"""How lmms-eval reads answers, for comparing with its numbers; written from a description of its rules, 2026-08.

Where it would ask a judge (MathVista, HallusionBench) there is no decision here: MathVista has its quick ways only, for
HallusionBench the rule without a judge that its files hold is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

VERSION = "lmms-eval/2026-08"

_ENDS = ",.!?;:'"
_FIRST = tuple(
    map(
        re.compile,
        (
            r"^([A-D])[\.\s\)]",
            r"^([A-D])$",
            r"[Aa]nswer[:\s]+([A-D])",
            r"[Tt]he answer is[:\s]+([A-D])",
            r"[Mm]y answer is[:\s]+([A-D])",
            r"\(([A-D])\)",
            r"([A-D])\.",
            r"\b([A-D])\b",
        ),
    )
)
_PHRASES = tuple(f"{who} {what} is" for who in ("the correct", "the best") for what in ("answer", "option")) + (
    *("answer is", "correct answer is", "best answer is", "the answer is", "correct option is", "best option is"),
    *("choice is", "the choice is", "correct choice is", "the correct choice is", "my answer is", "my choice is"),
    *("i choose", "i select", "i pick", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)


def exact_word(response: str) -> str | None:
    """POPE: the response is "yes" or "no" and nothing else, not even a full stop."""
    word = response.lower().strip()
    return word if word in ("yes", "no") else None


def says_yes(response: str) -> str:
    """HallusionBench without a judge: yes if these letters occur anywhere."""
    return "yes" if "yes" in response.lower() else "no"


def first_pattern(response: str) -> str | None:
    """3DSRBench: the first of eight patterns that occurs, and its first occurrence."""
    text = response.strip()
    return next((m[1] for p in _FIRST if (m := p.search(text))), None)


def _stripped(response: str, ends: str = _ENDS) -> str:
    for end in ends:  # one after the other, so that "B.'" keeps its full stop
        response = response.strip(end)
    return f" {response} "


def candidates(response: str, options: Mapping[str, str], forms: Sequence[Sequence[str]]) -> str | None:
    """MMMU and VMCBench: the letters that occur in the first form that any letter has, of several the last one.

    Without one, in responses of more than five words, options whose text occurs.

    Args:
        forms: steps, each of forms such as "({})".
    """
    text = _stripped(response)
    for number, step in enumerate(forms):
        named = [x for x in options if any(form.format(x) in text for form in step)]
        if named:
            place = "({})" if number == 0 else " {} "
            return max(named, key=lambda x: (text.rfind(place.format(x)), -list(options).index(x)))
    if len(text.split()) > 5:
        low = text.lower()
        said = [x for x, option in options.items() if option.lower() in low]
        if said:
            return max(said, key=lambda x: (low.rfind(options[x].lower()), -list(options).index(x)))
    return None


def mmmu_letter(response: str, options: Mapping[str, str]) -> str | None:
    """MMMU, multiple choice."""
    return candidates(response, options, (("({})",), ("{} ",), ("{}.",)))


def vmcbench_letter(response: str, options: Mapping[str, str]) -> str | None:
    """VMCBench."""
    return candidates(response, options, (("({})", "{}. "), (" {} ",)))


def ranked_letter(response: str, letters: Sequence[str]) -> str | None:
    """RealWorldQA: every form of every letter is a candidate; the form decides, then the later place."""
    if not response.strip():
        return None
    text = _stripped(response.strip(), _ENDS + '"')
    bare, low = text.strip(), text.lower()
    results: list[tuple[int, int, int]] = []  # rank of the form, place, order of the letters backwards

    def add(rank: int, place: int, letter: str) -> None:
        if place >= 0:
            results.append((rank, place, -letters.index(letter)))

    for letter in letters:
        for rank, form in ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} ")):
            add(rank, text.rfind(form.format(letter)), letter)
        for phrase in _PHRASES:
            place = low.find(phrase)
            add(7, text.find(letter, place + len(phrase)) if place >= 0 else -1, letter)
        if bare.startswith(letter) and not bare[1:2].isalpha():
            add(10, 0, letter)
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            add(9, len(text) - 1, letter)
    if not results:
        for letter in letters:
            add(0, text.rfind(letter), letter)
    return letters[-max(results)[2]] if results else None


def quick_answer(response: str, kind: str, choices: Sequence[str], places: int) -> str | None:
    """MathVista without its judge: the response is one of the choices, or a number and nothing else."""
    text = response.strip()
    if choices:
        return text if text in choices else None
    try:
        if kind == "integer":
            return str(int(text))
        return str(round(float(text), places)) if kind == "float" else None
    except (ValueError, OverflowError):
        return None
