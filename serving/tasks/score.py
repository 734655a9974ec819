"""Scoring answers that are there already: each row of a JSONL file holds a task's fields and a `response`."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..disk import disk_errors, write_bytes
from ..reading.files import read_file
from .row import Row
from .rows import needs, unique
from .task import NATIVE, Answer, Item, Judged, Task


@dataclass(frozen=True)
class Decision:
    """One response and what became of it. `guessed`: a harness that guesses would have drawn `judged.answer`."""

    judged: Judged
    response: str
    guessed: bool = False

    def row(self) -> dict[str, Any]:
        """For a line of JSON."""
        item, answer = self.judged.item, self.judged.answer
        return {
            "id": item.id,
            "row": item.row,
            "cluster": item.cluster,
            "groups": dict(item.groups),
            "gold": item.gold,
            "response": self.response,
            "answer": answer,
            "correct": self.judged.correct,
            "parsed": answer is not None and not self.guessed,
            "guessed": self.guessed,
        }


@dataclass(frozen=True)
class Score:
    """Named numbers with the decisions behind them; `n`, `unparsed`, `guessed` and `sets` are counts, the others shares."""

    task: Task
    harness: str
    parser: str
    metrics: Mapping[str, float]
    decisions: Sequence[Decision]


def read_responses(task: Task, path: str | Path) -> list[tuple[Item, str]]:
    """Items and responses of a file (JSONL, JSON, CSV, TSV, parquet); an empty response may be "" or null.

    Raises:
        LostattnError: no such file, no rows, a row without a field, naming both.
    """
    needed = f"{needs(task)}, and response"
    results = []
    for row in read_file(Path(path), needed):
        response = _response(row)
        results.append((task.item(row), response))
    if not results:
        raise LostattnError(f"{Path(path).name} has no rows: {needed}")
    items = unique([item for item, _ in results])
    return [(item, response) for item, (_, response) in zip(items, results, strict=True)]


def _response(row: Row) -> str:
    if "response" not in row.values:
        raise row.error("has no field 'response'")
    response = row.values["response"]
    if isinstance(response, dict | list):
        raise row.error("has no text in field 'response'")
    return "" if response is None else str(response)


def score(task: Task, answered: Sequence[tuple[Item, str]], harness: str = NATIVE, seed: int = 0) -> Score:
    """Parse, judge and measure.

    Args:
        harness: whose rule; a rule that guesses draws from `seed` and the item's id, so that the order does not matter.

    Raises:
        LostattnError: the task has no such rule, or there are no answers.
    """
    rule = task.rule(harness)
    decisions = []
    for item, response in answered:
        answer: Answer | None = rule.parse(response, item)
        guessed = answer is None and rule.guesses and bool(item.options)
        if guessed:
            answer = random.Random(f"{seed}/{item.id}").choice(list(item.options))
        decisions.append(Decision(task.judge(item, answer, harness), response, guessed))
    metrics = task.metrics([(d.judged.item, d.judged.answer) for d in decisions], harness)
    lost = sum(d.guessed for d in decisions)
    if rule.guesses:
        metrics = {"n": metrics.pop("n"), "unparsed": metrics.pop("unparsed") + lost, "guessed": lost, **metrics}
    return Score(task, harness, rule.version, metrics, decisions)


def write_decisions(path: str | Path, decisions: Sequence[Decision]) -> None:
    """One line of JSON for each decision; the file is there whole or not at all. Raises LostattnError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.lostattn-new")
    lines = "".join(json.dumps(d.row(), ensure_ascii=False) + "\n" for d in decisions)
    with disk_errors(f"cannot write {path}"):
        temporary.unlink(missing_ok=True)
        try:
            write_bytes(temporary, lines.encode("utf-8", "replace"))
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
