"""The comparison's report in the form of an evaluation's, for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..evaluation import page as evaluation
from ..stats import equivalence, verdict
from .accuracy import picture_labels, rights
from .questions import Question

SHOWN = 12  # questions


def page(report: Mapping[str, Any], questions: Sequence[Question], answers: Mapping[str, Any]) -> str:
    """The whole page."""
    task, right = report["data"] or "questions", {n: rights(questions, rows) for n, rows in answers.items()}
    base = right[report["base"]]
    changed = [i for i in range(len(questions)) if len({r[i] for r in right.values()}) > 1][:SHOWN] or range(
        min(SHOWN, len(base))
    )
    facts = {
        "task": task, "n": len(questions), "data": task, "prompt": report["prompt"], "max_tokens": report["max_tokens"],
        "parser": report["parser"]["version"], "main": "accuracy", "first_prompt": report["first_prompt"],
        "clusters": len(set(picture_labels(questions))) if report["clusters"] else None,
    }  # fmt: skip
    told = {
        **report, "command_name": "compare", "tasks": [facts], "harness": "lostattn", "how": {"options": report["options"]},
        "results": [_row(task, row, base, right, report, questions) for row in report["accuracy"]],
        "changed": [_question(task, i, questions[i], right, answers) for i in changed],
    }  # fmt: skip
    return evaluation.page(told, {(task, str(i)): questions[i].example.open() for i in changed})


def _row(task: str, row: Mapping[str, Any], base: Any, right: Any, report: Any, questions: Any) -> dict[str, Any]:
    kinds = {kind: found[row["name"]][0] / found[row["name"]][1] for kind, found in report["by_kind"].items()}
    accuracy = {"share": row["accuracy"], **row["interval"]}
    out = {
        **row,
        "task": task,
        "model": row["name"],
        "accuracy": accuracy,
        "metrics": {"accuracy": row["accuracy"], **kinds},
    }
    if "difference" in row:
        found = equivalence(
            base, right[row["name"]], clusters=picture_labels(questions) if report["clusters"] else None
        )
        out["equivalence"] = asdict(found)
        out["verdict"] = verdict(row["difference"]["difference"], row["p_holm"], found)
    return out


def _question(task: str, i: int, question: Question, right: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
    said = [
        {"model": n, "text": rows[i]["text"], "answer": None, "correct": right[n][i]} for n, rows in answers.items()
    ]
    gold = question.expected.value
    return {
        "task": task,
        "id": str(i),
        "row": question.example.row,
        "question": question.text,
        "gold": gold,
        "answers": said,
    }
