"""MathVista, testmini: mathematics in pictures; options, whole numbers, decimal numbers, lists.

Rows: `question`, `question_type` (multi_choice or free_form), `answer_type` (text, integer, float, list), `answer`, `choices` (a
list) for multi_choice, `precision` for float, and if there `pid`, `query`, `unit`, `metadata`, `decoded_image` or `image`.
Prompt: `query`, which the data set brings along (hint, question, choices); if it is missing, question and choices.
Parser: no judge. Options letters.py, and the answer is the choice's text; numbers numerals.py; texts free_text.py; lists the
last list in brackets, else the numbers behind the last statement. Unparsed is wrong. The Levenshtein-nearest choice, which the
official script takes in the end, would be a guess and is not taken.
Right as in the official script: an integer after cutting off decimals (but not those of a root or fraction), a float after
rounding to `precision` places, a list if all its numbers are equal, a choice if it is the same text. 45% may mean 0.45 where a
float is asked for.
Metrics: accuracy; by question and answer type, and by task, category and skill of `metadata`.
Harnesses: lmms-eval and vlmevalkit leave all to a judge but what needs none: a choice's text (vlmevalkit also infers a letter), a
number and nothing else. Only these are decided here, the rest counts as unparsed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from . import free_text, harness_lmms, harness_vlmevalkit, letters, numerals
from .measure import accuracy, breakdown
from .row import Row, options_of
from .task import NATIVE, Answer, Item, Judged, Rule, Task, register_task

_TYPES = {"text": "text", "integer": "integer", "float": "float", "list": "list"}
_ENDLESS = re.compile(r"\.\d{9}")  # the value of a root or a fraction: no whole number with decimals to cut off
_HINTS = {
    "text": ("the question", "correct option letter, e.g., A, B, C, D,"),
    "integer": ("the question requiring an integer answer", "final value, e.g., 1, 2, 3,"),
    "list": ("the question requiring a Python list as an answer", "final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4],"),
    1: ("the question requiring a floating-point number with one decimal place", "final value, e.g., 1.2, 1.3, 1.4,"),
    2: (
        "the question requiring a floating-point number with two decimal places",
        "final value, e.g., 1.23, 1.34, 1.45,",
    ),
}


def _item(row: Row) -> Item:
    many = row.one_of({"multi_choice": "multi_choice", "free_form": "free_form"}, "question_type") == "multi_choice"
    kind = row.one_of(_TYPES, "answer_type")
    options = options_of(row.listed("choices")) if many else {}
    images = row.images("decoded_image", "image")
    gold = row.text("answer") if not isinstance(row.get("answer"), list) else str(row.get("answer"))
    if many and gold not in options.values():
        raise row.error(f"has the answer {gold[:40]!r}, which is none of its choices")
    name = str(row.get("pid", "id") or row.number)
    return Item(
        id=name,
        cluster=row.cluster(row.images("image") or images, name),
        groups=_groups(row, "multi_choice" if many else "free_form", kind),
        prompt=(0, str(row.get("query") or _query(row, kind, options))),
        gold=gold,
        options=options,
        images=images,
        details={"kind": kind, "places": _places(row, kind), "skills": _skills(row)},
    )


def _groups(row: Row, question: str, answer: str) -> dict[str, str]:
    more: Any = row.get("metadata")
    named = {k: str(more[k]) for k in ("task", "category") if more.get(k)} if isinstance(more, dict) else {}
    return {"question": question, "answer": answer} | named


def _skills(row: Row) -> tuple[str, ...]:
    more: Any = row.get("metadata")
    skills = more.get("skills") if isinstance(more, dict) else None
    return tuple(map(str, skills)) if isinstance(skills, list | tuple) else ()


def _places(row: Row, kind: str) -> int:
    try:
        return int(row.need("precision")) if kind == "float" else 0
    except (TypeError, ValueError):
        raise row.error("has no number in field 'precision'") from None


def _query(row: Row, kind: str, options: dict[str, str]) -> str:
    unit = f" (Unit: {row.get('unit')})" if row.get("unit") else ""
    listed = "\nChoices:\n" + "\n".join(f"({x}) {text}" for x, text in options.items()) if options else ""
    what, form = _HINTS.get(_places(row, kind) if kind == "float" else kind, _HINTS[2])
    hint = f"Hint: Please answer {what} and provide the {form} at the end."
    return f"{hint}\nQuestion: {row.text('question').strip()}{unit}{listed}"


def _parse(response: str, item: Item) -> Answer | None:
    if item.options:
        letter = letters.choose(response, item.options)
        return item.options[letter] if letter else None
    if item.details["kind"] == "list":
        return numerals.number_list(response)
    if item.details["kind"] == "text":
        return free_text.open_answer(response)
    return numerals.number(response)


def _correct(answer: Answer, item: Item) -> bool:
    kind, gold = item.details["kind"], str(item.gold)
    if item.options:
        return answer == gold
    if kind == "text":
        return free_text.same(str(answer), gold)
    if isinstance(answer, tuple):
        return answer == tuple(map(numerals.value, numerals.numbers(gold)))
    wanted = numerals.numbers(gold)
    if len(wanted) != 1:
        return False
    if kind == "integer":
        return not _ENDLESS.search(answer) and int(numerals.value(answer)) == int(numerals.value(wanted[0]))
    meant = [numerals.value(answer)] + [numerals.value(answer) / 100] * answer.endswith("%")
    return any(abs(round(m, item.details["places"]) - numerals.value(wanted[0])) < 1e-9 for m in meant)


def _quick(response: str, item: Item) -> Answer | None:
    return harness_lmms.quick_answer(
        response, item.details["kind"], list(item.options.values()), item.details["places"]
    )


def _prefetched(response: str, item: Item) -> Answer | None:
    return harness_vlmevalkit.prefetched(response, item.details["kind"], list(item.options.values()), str(item.gold))


def _same(answer: Answer, item: Item) -> bool:
    return str(answer).strip() == str(item.gold).strip()


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    skills: dict[str, list[Judged]] = {}
    for j in judged:
        for skill in j.item.details["skills"]:
            skills.setdefault(skill, []).append(j)
    return (
        {"accuracy": accuracy(judged)}
        | breakdown(judged, "question", "answer", "task", "category")
        | {f"{skill}/accuracy": accuracy(part) for skill, part in sorted(skills.items())}
    )


register_task(
    Task(
        name="mathvista",
        summary="Mathematics in pictures; options, numbers, lists, without a judge",
        hub="AI4Math/MathVista",
        splits=("testmini",),
        needs="question, question_type, answer_type, answer, choices (for multi_choice) and precision (for float)",
        prompts={"default": _item},
        version="1",
        rules={
            NATIVE: Rule(f"{letters.VERSION}, {numerals.VERSION}, {free_text.VERSION}", _parse, _correct),
            "lmms-eval": Rule(harness_lmms.VERSION, _quick, _same),
            "vlmevalkit": Rule(harness_vlmevalkit.VERSION, _prefetched, _same),
        },
        measure=_measure,
    )
)
