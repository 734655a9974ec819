"""The same responses are read alike by `score`, by `eval` of a server, and by `compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_api import api
from judged import make_folders
from lostattn.serving.client import data_url
from lostattn.serving.evaluation.store import Reply
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.score import score
from lostattn.surgery.evaluation import backends
from lostattn.surgery.evaluation import compare as comparing
from lostattn.surgery.evaluation.compare import CompareSettings, compare
from lostattn.surgery.evaluation.evaluate import EvalSettings, run_eval
from lostattn.surgery.evaluation.tasks import Asked
from PIL import Image

pytest.importorskip("openai")
TABLE = Path(__file__).parents[1] / "serving" / "answers" / "field.jsonl"
CASES = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]


def asked(task: str) -> tuple[Asked, dict[str, str]]:
    """A task's rows with pictures that differ, and the response to each picture."""
    items, said = [], {}
    for number, case in enumerate(c for c in CASES if c["task"] == task):
        row = {k: v for k, v in case["row"].items() if k != "response"}
        picture = Image.new("RGB", (8, 8), (number, 90, 160))
        items.append(get_task(task).item(Row(number + 1, {**row, "image": picture, "id": f"{number}"})))
        said[data_url(picture)] = case["row"]["response"]
    return Asked(get_task(task), items, "table", "1", 64), said


@pytest.fixture(params=sorted({c["task"] for c in CASES}))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read(path: Path) -> list[tuple[Any, bool]]:
    return [(r["answer"], r["correct"]) for r in map(json.loads, path.read_text(encoding="utf-8").splitlines())]


def test_alike(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, said = asked(task)
    decisions = score(one.task, list(zip(one.items, said.values(), strict=True))).decisions
    wanted = [(d.judged.answer, d.judged.correct) for d in decisions]
    cases = [c for c in CASES if c["task"] == task]
    assert [correct for _, correct in wanted] == [c["right"] for c in cases]
    assert all(answer == c["read"] for (answer, _), c in zip(wanted, cases, strict=True) if "read" in c)

    def respond(body: dict[str, Any]) -> str:
        return said[body["messages"][0]["content"][0]["image_url"]["url"]]

    with api(respond) as server:
        run_eval(["m"], [one], tmp_path / "eval", EvalSettings(backend=server.url))
    assert read(tmp_path / "eval" / task / "m.jsonl") == wanted
    _serve(monkeypatch, lambda item: said[data_url(item.pictures()[0])])
    folders = make_folders(tmp_path / "models")
    compare(folders[0], folders[1:2], [one], tmp_path / "compare", CompareSettings(bench=None))
    for name in ("base", "sap"):
        assert read(tmp_path / "compare" / task / f"{name}.jsonl") == wanted


def _serve(monkeypatch: pytest.MonkeyPatch, respond: Callable[[Any], str]) -> None:
    """Stand in for vLLM's servers."""
    endpoint = SimpleNamespace(url="", name="m")
    servers = SimpleNamespace(use=lambda side: endpoint, blame=lambda side: nullcontext(), options=[])
    made = SimpleNamespace(ask=lambda item: Reply(respond(item).strip(), "stop", "", "p", 9, 8, 2), close=lambda: None)
    monkeypatch.setattr(comparing, "open_servers", lambda *_: nullcontext(servers))
    monkeypatch.setattr(backends, "Asker", lambda *_, **__: made)
