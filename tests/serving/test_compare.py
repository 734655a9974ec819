"""Comparing: same questions to all, judged, resumable, refused where it would mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from judging_reports import NAMES, fake_reply, make_examples, make_folder, make_folders
from lostattn.patches.errors import LostattnError
from lostattn.serving.judging import compare as module
from lostattn.serving.judging.client import Reply, concurrently
from lostattn.serving.judging.compare import CompareSettings, compare
from lostattn.serving.judging.questions import Question, make_questions
from lostattn.serving.judging.sides import Side, check_processors, read_sides

pytest.importorskip("matplotlib")
QUIET = CompareSettings(bench=None, concurrency=3)


class Fake:
    """Servers and client in one: answers by `reply`, and counts who was started and asked."""

    def __init__(self, reply: Callable[[str, Question], Reply]) -> None:
        self.reply, self.options = reply, ["--made-up"]
        self.started: list[str] = []
        self.asked: list[tuple[str, int]] = []

    def use(self, side: Side) -> str:
        self.started.append(side.name)
        return side.name

    def blame(self, side: Side) -> Any:
        return nullcontext()

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    servers = Fake(fake_reply)

    class Client:
        def __init__(self, name: str, image_token: int) -> None:
            assert image_token == 9
            self.name = name

        def close(self) -> None:
            pass

    def asker(client: Client, max_tokens: int) -> Callable[[Question], Reply]:
        def ask(question: Question) -> Reply:
            servers.asked.append((client.name, question.example.row))
            return servers.reply(client.name, question)

        return ask

    monkeypatch.setattr(module, "open_servers", lambda *_: servers)
    monkeypatch.setattr(module, "Client", Client)
    monkeypatch.setattr(module, "asker", asker)
    return servers


def run(path: Path, count: int = 60, settings: CompareSettings = QUIET, out: str = "out") -> dict[str, Any]:
    folders = [path / n for n in NAMES] if (path / "base").exists() else make_folders(path)
    return compare(folders[0], folders[1:], make_examples(count), path / out, settings)


def test_figures_are_those_of_the_answers(fake: Fake, tmp_path: Path) -> None:
    report = run(tmp_path)
    base, sap, noise = report["accuracy"]
    assert [r["name"] for r in report["accuracy"]] == list(NAMES) == fake.started
    assert (base["right"], sap["right"], noise["right"]) == (48, 45, 40)
    assert base["accuracy"] == 48 / 60 and "difference" not in base
    assert sap["difference"]["difference"] == pytest.approx(-3 / 60)
    assert (sap["gained"], sap["lost"]) == (9, 12)  # wrong in base only: 5, 10, ... without 20, 40, 60
    assert sap["unparsed"] == _unreadable(4) > 0
    assert sap["p"] <= sap["p_holm"] <= 1 and noise["difference"]["low"] < noise["difference"]["high"]
    assert report["clusters"] and set(report["by_kind"]) == {"yes_no", "option", "number"}
    saving = {m["name"]: m["predicted_kv"][-1]["kv_share"] for m in report["models"]}
    assert saving["sap"] < 0.51 and saving["base"] == saving["noise"] == 1.0


def _unreadable(every: int) -> int:
    """Rows in which the made-up wrong answer `no 3 A` (even) or `hm` (odd) says nothing of the kind that is asked for."""
    questions = make_questions(make_examples(60))
    from lostattn.serving.judging.parsing import parse

    wrong = [q for q in questions if q.example.row % every == 0]
    return sum(parse(fake_reply("sap", q).text, q.expected) is None for q in wrong)


def test_unparsed_is_wrong_and_counted(fake: Fake, tmp_path: Path) -> None:
    fake.reply = lambda name, q: Reply("hm", "length", f"p{q.example.row}", 9, 8, 64)
    report = run(tmp_path, 12)
    for row in report["accuracy"]:
        assert (row["accuracy"], row["unparsed"], row["cut"]) == (0.0, 12, 12)
    assert report["accuracy"][1]["agreement"] == 1.0 and report["accuracy"][1]["p"] == 1.0


def test_what_is_written(fake: Fake, tmp_path: Path) -> None:
    report = run(tmp_path)
    out = tmp_path / "out"
    assert json.loads((out / "compare.json").read_text()) == json.loads(json.dumps(report))
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert [r["row"] for r in rows] == list(range(1, 61)) and set(rows[0]["answers"]) == set(NAMES)
    text = (out / "compare.md").read_text()
    assert "| sap |" in text and "McNemar" in text and "made-up" in text


def test_an_interrupted_run_equals_an_uninterrupted_one(fake: Fake, tmp_path: Path) -> None:
    whole = run(tmp_path, out="whole")
    calls = 0

    def dying(name: str, question: Question) -> Reply:
        nonlocal calls
        calls += 1
        if calls > 75:
            raise KeyboardInterrupt
        return fake_reply(name, question)

    fake.reply = dying
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, out="cut")
    before, fake.reply, fake.asked = set(fake.asked[-78:]), fake_reply, []
    resumed = run(tmp_path, out="cut")
    assert resumed == whole
    for name in ("compare.json", "compare.md", "answers.jsonl", "compare.html"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not {n for n, _ in fake.asked} & {"base"} and 100 <= len(fake.asked) <= 120 and before
    fake.asked = []
    assert run(tmp_path, out="cut") == whole and fake.asked == []


@pytest.mark.parametrize("change", ["model", "data", "tokens"])
def test_other_settings_start_anew(fake: Fake, tmp_path: Path, change: str) -> None:
    run(tmp_path)
    fake.asked = []
    if change == "model":
        (tmp_path / "sap" / "generation_config.json").write_text("{}")
    run(tmp_path, 59 if change == "data" else 60, replace(QUIET, max_tokens=9) if change == "tokens" else QUIET)
    assert {n for n, _ in fake.asked} == ({"sap"} if change == "model" else set(NAMES))


def test_other_prompts_are_refused(fake: Fake, tmp_path: Path) -> None:
    def other(name: str, question: Question) -> Reply:
        found = fake_reply(name, question)
        return replace(found, prompt="another") if (name, question.example.row) == ("noise", 17) else found

    fake.reply = other
    with pytest.raises(LostattnError, match="row 17: noise reads other prompt tokens"):
        run(tmp_path)
    assert not (tmp_path / "out" / "compare.json").exists()


def test_bad_sides(tmp_path: Path) -> None:
    base, sap, _ = make_folders(tmp_path)
    with pytest.raises(LostattnError, match="nothing to compare"):
        read_sides(base, [])
    with pytest.raises(LostattnError, match="BASE has to be the original"):
        read_sides(sap, [base])
    with pytest.raises(LostattnError, match="not a model folder"):
        read_sides(base, [tmp_path])
    (sap / "preprocessor_config.json").write_text('{"size": 3}')
    with pytest.raises(LostattnError, match="prepares pictures in another way"):
        check_processors(read_sides(base, [sap]))
    assert [s.name for s in read_sides(base, [make_folder(tmp_path / "x" / "base", None)])] == ["base", "base-2"]


def test_no_questions(tmp_path: Path) -> None:
    base, sap, _ = make_folders(tmp_path)
    with pytest.raises(LostattnError, match="needs questions"):
        compare(base, [sap], [], tmp_path / "out")


def test_concurrently_stops_at_the_first_error() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise ValueError("five")
        return item

    with pytest.raises(ValueError, match="five"):
        list(concurrently(work, range(1000), 2))
    assert len(begun) < 12
    assert sorted(concurrently(lambda x: x * x, range(20), 4)) == [(i, i * i) for i in range(20)]
