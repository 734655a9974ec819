"""Tables of answers as models and people write them, each with what a careful reader takes from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.letters import choose
from lostattn.serving.tasks.numerals import number
from lostattn.serving.tasks.plain import answer_part
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.score import read_responses, score
from lostattn.serving.tasks.yesno import yes_or_no

TABLES = Path(__file__).parent / "answers"
COLOURS = {"A": "red", "B": "blue", "C": "green", "D": "yellow"}


def table(name: str) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [json.loads(line) for line in (TABLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def cases(name: str) -> Any:
    return pytest.mark.parametrize("row", table(name), ids=lambda row: repr(row.get("said", row))[:60])


@cases("letters")
def test_letters(row: dict[str, Any]) -> None:
    assert choose(row["said"], COLOURS) == row["read"]


@cases("yesno")
def test_yes_and_no(row: dict[str, Any]) -> None:
    assert yes_or_no(row["said"], "cat") == row["read"]


@cases("numbers")
def test_numbers(row: dict[str, Any]) -> None:
    assert number(row["said"]) == row["read"]


@cases("parts")
def test_parts(row: dict[str, Any]) -> None:
    part = answer_part(row["said"])
    assert (part if part is None else part.strip()) == row["read"]


OPEN: dict[str, dict[str, Any]] = {
    "mmmu": {"id": "validation_Math_1", "question": "What?", "question_type": "open", "options": "[]"},
    "mathvista": {"question": "What?", "question_type": "free_form", "answer_type": "text"},
    "realworldqa": {"question": "What?"},
}


@cases("texts")
def test_open_answers(row: dict[str, Any]) -> None:
    task = get_task(row["task"])
    item = task.item(Row(1, {**OPEN[row["task"]], "answer": row["gold"]}))
    answer = task.parse(row["said"], item)
    assert (None if answer is None else task.judge(item, answer).correct) == row["right"]


@pytest.mark.parametrize(
    "case",
    [*table("field"), *table("scored"), *table("scored_more")],
    ids=lambda case: repr(case["row"]["response"])[:60],
)
def test_scored(case: dict[str, Any], tmp_path: Path) -> None:
    """Whole way: a file of responses is read, parsed and judged."""
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(case["row"]) + "\n", encoding="utf-8")
    task = get_task(case["task"])
    decision = score(task, read_responses(task, path)).decisions[0]
    assert decision.judged.correct == case["right"]
    assert "read" not in case or decision.judged.answer == case["read"]
