"""From the reports of compare and eval to the card on the Hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from click.testing import Result
from hub_server.client import mistake
from hub_server.server import Hub
from judged import fake_reply, make_asked
from lostattn.serving.evaluation.versus import Outcome
from lostattn.serving.sides import read_sides
from lostattn.serving.tasks.score import score
from lostattn.surgery.evaluation.backends import Model
from lostattn.surgery.evaluation.evaluate import EvalSettings, make_report
from lostattn.surgery.patch import patch_checkpoint

pytest_plugins = ["hub_server.fixtures"]
Run = Callable[..., Result]


def card_of(hub: Hub, name: str = "me/tiny") -> tuple[list[dict[str, Any]], str]:
    """The model-index's results of a pushed card, and its text."""
    text = hub.store.files(name)["README.md"].decode()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front)["model-index"][0]["results"], body


@pytest.fixture(scope="module")
def other(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model under another plan."""
    out = tmp_path_factory.mktemp("other") / "other"
    patch_checkpoint(tiny_llava, out, layers="0", heads="all", mode="uniform")
    return out


class Backend:
    """What a report says of who answered."""

    settings: ClassVar = {"backend": "vllm", "options": ["--made-up"]}
    versions: ClassVar = {"vllm": "0"}


def compared(out: Path, base: Path, *patched: Path, data: str = "pairs.jsonl") -> Path:
    """compare.json of made-up answers to 60 questions: 48 right, 45 by the first patched model, 40 by the second."""
    (asked,), outcomes = make_asked(60, data), []
    sides = read_sides(base, patched)
    for side, whose in zip(sides, ("base", "sap", "noise", "noise"), strict=False):
        replies = [fake_reply(whose, item) for item in asked.items]
        found = score(asked.task, [(i, r.text) for i, r in zip(asked.items, replies, strict=True)])
        outcomes.append(Outcome(asked.task.name, side.name, found, replies, 1.0))
    models = [Model(s.name, s.folder, s.name, s.plan) for s in sides]
    out.write_text(json.dumps(make_report("compare", models, [asked], outcomes, EvalSettings(), Backend())))
    return out


def test_compare_becomes_the_card(
    hub: Hub, run: Run, tiny_llava: Path, folder: Path, other: Path, tmp_path: Path
) -> None:
    report = compared(tmp_path / "compare.json", tiny_llava, folder, other)
    pushed = run("push", folder, "me/tiny", "--private", "--results", report)
    assert pushed.exit_code == 0, pushed.output
    rows, body = card_of(hub)
    metrics = {m["type"]: m for row in rows for m in row["metrics"]}
    mine = json.loads(report.read_text())["results"][1]
    interval = {k: mine["accuracy"][k] for k in ("low", "high")}
    accuracy, less = metrics["accuracy"], metrics["accuracy_difference"]
    assert [row["dataset"]["name"] for row in rows] == ["pairs.jsonl"] * len(rows)
    assert accuracy["value"] == 45 / 60 and accuracy["args"] == {"n": 60, **interval, "base": 48 / 60}
    assert interval["low"] < 45 / 60 < interval["high"]
    assert less["value"] == pytest.approx(-3 / 60) and less["args"]["low"] == mine["difference"]["low"]
    low, high = (f"{interval[k]:.4g}" for k in ("low", "high"))
    assert f"| pairs.jsonl | accuracy | 0.75 | {low} to {high} | 60 | 0.8 |" in body
    again = run("push", folder, "me/tiny", "--private", "--results", report)
    assert "no commit is needed" in again.stderr


def test_each_model_gets_its_own_numbers(
    hub: Hub, run: Run, tiny_llava: Path, folder: Path, other: Path, tmp_path: Path
) -> None:
    report = compared(tmp_path / "compare.json", tiny_llava, folder, other, data="")
    assert run("push", other, "me/other", "--private", "--results", report).exit_code == 0
    rows, _ = card_of(hub, "me/other")
    assert rows[0]["metrics"][0]["value"] == 40 / 60 and rows[0]["dataset"]["name"] == "questions"


def test_a_report_about_other_models_is_refused(
    run: Run, tiny_llava: Path, folder: Path, other: Path, tmp_path: Path
) -> None:
    report = compared(tmp_path / "compare.json", tiny_llava, other)
    said = mistake(run("push", folder, "me/tiny", "--dry-run", "--results", report))
    assert "measured other plans" in said
    twice = compared(
        tmp_path / "twice.json", tiny_llava, other, Path(shutil.copytree(folder, tmp_path / "copy")), folder
    )
    assert run("push", folder, "me/tiny", "--dry-run", "--results", twice).exit_code == 0, "the folder's name decides"
    renamed = folder.rename(tmp_path / "renamed")
    said = mistake(run("push", renamed, "me/tiny", "--dry-run", "--results", twice))
    assert "measured this plan in copy, patched" in said
    old = {k: v for k, v in json.loads(report.read_text()).items() if k != "results"}
    report.write_text(json.dumps(old))
    assert "make it anew" in mistake(run("push", renamed, "me/tiny", "--dry-run", "--results", report))


def test_eval_becomes_the_card(hub: Hub, run: Run, demo: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    patch_checkpoint(demo, tmp_path / "mine", layers="2", heads="all")
    asked = run("eval", demo, tmp_path / "mine", "--task", "digits", "--limit", 12, "--out", tmp_path / "out")
    assert asked.exit_code == 0, asked.output
    report = json.loads((tmp_path / "out" / "eval.json").read_text())
    first, mine = report["results"]
    done = run("push", tmp_path / "mine", "me/tiny", "--private", "--results", tmp_path / "out" / "eval.json")
    assert done.exit_code == 0, done.output
    rows, body = card_of(hub)
    row, metric = rows[0], rows[0]["metrics"][0]
    assert row["dataset"]["name"] == "digits" and (metric["type"], metric["value"]) == (
        "accuracy",
        mine["accuracy"]["share"],
    )
    assert metric["args"] == {
        "n": 12,
        "low": mine["accuracy"]["low"],
        "high": mine["accuracy"]["high"],
        "base": first["accuracy"]["share"],
    }
    assert "| digits | accuracy |" in body


def test_a_task_whose_papers_report_another_number(hub: Hub, run: Run, folder: Path, tmp_path: Path) -> None:
    sap = json.loads((folder / "config.json").read_text())["sap"]
    share = {"share": 0.5, "low": 0.4, "high": 0.6}
    rows = [
        {"task": "pope", "model": m, "n": 90, "main": x, "main_name": "f1", "accuracy": {**share, "share": y}}
        for m, x, y in (("plain", 0.8, 0.7), ("patched", 0.6, 0.5))
    ]
    models = [{"name": "plain", "sap": None}, {"name": "patched", "sap": sap}]
    (tmp_path / "eval.json").write_text(json.dumps({"models": models, "tasks": [{"task": "pope"}], "results": rows}))
    assert run("push", folder, "me/tiny", "--private", "--results", tmp_path / "eval.json").exit_code == 0
    found = {m["type"]: (m["value"], m["args"]) for row in card_of(hub)[0] for m in row["metrics"]}
    assert found["accuracy"] == (0.5, {"n": 90, "low": 0.4, "high": 0.6, "base": 0.7})
    assert found["f1"] == (0.6, {"n": 90, "base": 0.8})
