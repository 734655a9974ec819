"""`lostattn score` and `lostattn tasks`, as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lostattn.surgery.cli import main
from lostattn.surgery.demo.digits import held_out

Run = Callable[..., Result]
POPE = {"question": "Is there a dog in the image?", "category": "random"}
ROWS = [
    {**POPE, "question_id": 1, "answer": "yes", "response": "Yes."},
    {**POPE, "question_id": 2, "answer": "no", "response": "maybe"},
    {**POPE, "question_id": 3, "answer": "no", "response": None},
    {**POPE, "question_id": 4, "answer": "no", "response": "No, nothing – wirklich"},
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> Result:
        found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn")
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
        return found

    return invoke


def write(rows: list[Any], name: str = "answers.jsonl") -> str:
    Path(name).write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return name


def test_score(run: Run) -> None:
    found = run("score", "--task", "pope", "--responses", write(ROWS))
    assert found.exit_code == 0 and "yesno/" in found.stderr
    table = dict(line.split(None, 1) for line in found.stdout.splitlines())
    assert (
        table["n"] == "4"
        and table["unparsed"] == "2"
        and table["accuracy"] == "50.00 %"
        and table["yes_ratio"] == "25.00 %"
    )
    assert table["random/recall"] == "100.00 %"


def test_score_as_json(run: Run) -> None:
    found = json.loads(run("score", "--task", "pope", "--responses", write(ROWS), "--json").stdout)
    assert found["task"] == "pope" and found["harness"] == "lostattn" and found["n"] == 4 and found["unparsed"] == 2
    assert found["metrics"]["accuracy"] == 0.5 and found["parser"].startswith("yesno/") and "seed" not in found
    exact = json.loads(
        run("score", "--task", "pope", "--responses", "answers.jsonl", "--harness", "lmms-eval", "--json").stdout
    )
    assert exact["unparsed"] == 4 and exact["metrics"]["accuracy"] == 0 and exact["parser"].startswith("lmms-eval/")


def test_every_parsed_answer(run: Run) -> None:
    assert run("score", "--task", "pope", "--responses", write(ROWS), "--items", "out.jsonl").exit_code == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert [(r["id"], r["row"], r["answer"], r["correct"], r["parsed"]) for r in lines] == [
        ("random/1", 1, "yes", True, True),
        ("random/2", 2, None, False, False),
        ("random/3", 3, None, False, False),
        ("random/4", 4, "no", True, True),
    ]
    assert lines[3]["response"] == "No, nothing – wirklich" and lines[2]["response"] == "" and lines[0]["gold"] == "yes"
    assert {p.name for p in Path().iterdir()} == {"answers.jsonl", "out.jsonl"}
    again = run("score", "--task", "pope", "--responses", "answers.jsonl", "--items", "out.jsonl")
    assert (
        again.exit_code == 2 and "exists: choose another --items, or add --force" in again.stderr and again.stdout == ""
    )
    assert (
        run("score", "--task", "pope", "--responses", "answers.jsonl", "--items", "out.jsonl", "--force").exit_code == 0
    )


def test_the_last_rows_of_a_guessing_harness(run: Run) -> None:
    row = {
        "question": "?",
        "A": "a b",
        "B": "b c",
        "C": "c d",
        "D": "d e",
        "answer": "A",
        "category": "GQA",
        "response": "?",
    }
    found = json.loads(
        run(
            "score",
            "--task",
            "vmcbench",
            "--responses",
            write([row] * 3),
            "--harness",
            "lmms-eval",
            "--seed",
            3,
            "--json",
        ).stdout
    )
    assert (
        found["seed"] == 3
        and found["guessed"] == found["unparsed"] == 3
        and found["main"] == "macro"
        and found["sets"] == 1
    )


def test_a_demo_run(run: Run) -> None:
    rows = [
        {
            "question": q.question,
            "answer": q.answer,
            "options": q.options,
            "kind": q.kind,
            "response": f"The answer is {q.answer}.",
        }
        for q in held_out(20)
    ]
    rows[0]["response"], rows[1]["response"] = "", "E"
    found = json.loads(run("score", "--task", "digits", "--responses", write(rows), "--json").stdout)
    assert found["unparsed"] == 2 and found["metrics"] == {
        "accuracy": 0.9,
        "choice/accuracy": 0.75,
        "presence/accuracy": 0.75,
        **{f"{kind}/accuracy": 1.0 for kind in ("largest", "read", "right")},
    }


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [ROWS[0], POPE],
            "row 2 has no field 'response': each row of task pope needs question, answer (yes or no) and category, and response",
        ),
        ([ROWS[0], {**POPE, "response": "x"}], "row 2 has no field 'answer'"),
        ([{**ROWS[0], "response": ["yes"]}], "row 1 has no text in field 'response'"),
        (["{"], "row 1 of answers.jsonl is not JSON"),
        (["", "7"], "row 2 of answers.jsonl is no object"),
        ([], "answers.jsonl has no rows"),
    ],
    ids=str,
)
def test_wrong_rows(run: Run, rows: list[Any], says: str) -> None:
    found = run("score", "--task", "pope", "--responses", write(rows), "--items", "out.jsonl")
    assert found.exit_code == 2 and says in found.stderr and found.stdout == "" and found.stderr.count("\n") == 1
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--task", "popes"], "unknown task 'popes' (did you mean pope?): choose one of 3dsrbench, digits,"),
        (["--task", "pope", "--harness", "x"], "choose one of lostattn, lmms-eval"),
        (["--task", "digits", "--harness", "lmms-eval"], "task digits has no rule 'lmms-eval'"),
        (["--task", "pope", "--responses", "none.jsonl"], "cannot read none.jsonl"),
        (["--task", "pope", "--items", "none/out.jsonl"], "cannot write none/out.jsonl"),
        (["--task", "pope", "--responses", "."], "cannot read ."),
    ],
    ids=str,
)
def test_wrong_wishes(run: Run, arguments: list[str], says: str) -> None:
    responses = [] if "--responses" in arguments else ["--responses", write(ROWS)]
    found = run("score", *responses, *arguments)
    assert found.exit_code == 2 and says in found.stderr and found.stdout == ""


def test_tasks(run: Run) -> None:
    found = run("tasks")
    assert found.exit_code == 0 and "hallusionbench" in found.stdout and "suyc21/VMCBench" in found.stdout
    rows = {r["task"]: r for r in json.loads(run("tasks", "--json").stdout)}
    assert len(rows) == 10 and rows["vmcbench"]["prompt versions"] == ["vmcbench-default/1", "vmcbench-authors/1"]
    assert rows["mmmu"]["parsers"]["lostattn"] == "letters/2, mmmu-open/2" and "question_type" in rows["mmmu"]["needs"]


def test_repeated_ids_are_counted_and_said(run: Run) -> None:
    found = run("score", "--task", "pope", "--responses", write([ROWS[0], ROWS[1], ROWS[0], ROWS[0]]), "--json")
    assert found.exit_code == 0 and (json.loads(found.stdout)["n"], json.loads(found.stdout)["repeated"]) == (4, 2)
    assert "2 rows have an id that an earlier row has too" in found.stderr
    assert "earlier row" not in run("score", "--task", "pope", "--responses", write(ROWS)).stderr
