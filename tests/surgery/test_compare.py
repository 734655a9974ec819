"""Comparing: same questions to all, judged, resumable, refused where it would mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest
from judged import NAMES, fake_reply, make_asked, make_folder, make_folders
from lostattn.patches.errors import LostattnError
from lostattn.serving.evaluation.asker import concurrently
from lostattn.serving.evaluation.store import Reply
from lostattn.serving.sides import Side, check_processors, read_sides
from lostattn.serving.tasks.task import Item
from lostattn.surgery.evaluation import backends
from lostattn.surgery.evaluation import compare as module
from lostattn.surgery.evaluation.compare import CompareSettings, compare

pytest.importorskip("matplotlib")
QUIET = CompareSettings(bench=None, concurrency=3)


class Fake:
    """Servers: they answer by `reply`, and count who was started and asked."""

    def __init__(self, reply: Callable[[str, Item], Reply]) -> None:
        self.reply, self.options = reply, ["--made-up"]
        self.started: list[str] = []
        self.asked: list[tuple[str, int]] = []

    def use(self, side: Side) -> Any:
        self.started.append(side.name)
        return SimpleNamespace(url="http://127.0.0.1:1/v1", name=side.name)

    def blame(self, side: Side) -> Any:
        return nullcontext()

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    servers = Fake(fake_reply)

    class Asker:
        def __init__(self, url: str, name: str, max_tokens: int, *, image_token: int, **more: Any) -> None:
            assert image_token == 9 and max_tokens == 64
            self.name = name

        def ask(self, item: Item) -> Reply:
            servers.asked.append((self.name, item.row))
            return servers.reply(self.name, item)

        def close(self) -> None:
            pass

    monkeypatch.setattr(module, "open_servers", lambda *_: servers)
    monkeypatch.setattr(backends, "Asker", Asker)
    return servers


def run(path: Path, count: int = 60, settings: CompareSettings = QUIET, out: str = "out") -> dict[str, Any]:
    folders = [path / n for n in NAMES] if (path / "base").exists() else make_folders(path)
    return compare(folders[0], folders[1:], make_asked(count), path / out, settings)


def test_figures_are_those_of_the_answers(fake: Fake, tmp_path: Path) -> None:
    report = run(tmp_path)
    base, sap, noise = report["results"]
    assert [r["model"] for r in report["results"]] == list(NAMES) == fake.started
    right = [round(r["accuracy"]["share"] * 60) for r in (base, sap, noise)]
    assert right == [48, 45, 40] and "difference" not in base
    assert sap["difference"]["difference"] == pytest.approx(-3 / 60)
    assert (sap["gained"], sap["lost"]) == (9, 12)  # wrong in base only: 5, 10, ... without 20, 40, 60
    assert sap["unparsed"] == _unreadable(4) > 0
    assert sap["p"] <= sap["p_holm"] <= 1 and noise["difference"]["low"] < noise["difference"]["high"]
    assert report["tasks"][0]["clusters"] == 30
    assert {f"{form}/accuracy" for form in ("yes_no", "option", "number")} <= set(base["metrics"])
    saving = {m["name"]: m["predicted_kv"][-1]["kv_share"] for m in report["models"]}
    assert saving["sap"] < 0.51 and saving["base"] == saving["noise"] == 1.0


def _unreadable(every: int) -> int:
    """Rows in which the made-up wrong answer `no 3 A` (even) or `hm` (odd) says nothing of the kind that is asked for."""
    (asked,) = make_asked(60)
    wrong = [item for item in asked.items if item.row % every == 0]
    return sum(asked.task.parse(fake_reply("sap", item).text, item) is None for item in wrong)


def test_unparsed_is_wrong_and_counted(fake: Fake, tmp_path: Path) -> None:
    fake.reply = lambda name, item: Reply("hm", "length", "", f"p{item.row}", 9, 8, 64)
    report = run(tmp_path, 12)
    for row in report["results"]:
        assert (row["accuracy"]["share"], row["unparsed"], row["cut"]) == (0.0, 12, 12)
    assert report["results"][1]["agreement"] == 1.0 and report["results"][1]["p"] == 1.0


def test_what_is_written(fake: Fake, tmp_path: Path) -> None:
    report = run(tmp_path)
    out = tmp_path / "out"
    assert json.loads((out / "compare.json").read_text()) == json.loads(json.dumps(report))
    for name in NAMES:
        rows = [json.loads(line) for line in (out / "questions" / f"{name}.jsonl").read_text().splitlines()]
        assert [r["row"] for r in rows] == list(range(1, 61)) and {r["visual"] for r in rows} == {8}
    text, page = (out / "compare.md").read_text(), (out / "compare.html").read_text()
    assert "| questions | sap |" in text and "McNemar" in text and "vllm" in text
    assert (
        page.count("<img") == len(report["changed"]) == 12
        and "&lt;script&gt;alert(1)" in page
        and "<script>" not in page
    )
    assert all(len({a["correct"] for a in q["answers"]}) == 2 for q in report["changed"])


def test_an_interrupted_run_equals_an_uninterrupted_one(fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, out="whole")
    calls = 0

    def dying(name: str, item: Item) -> Reply:
        nonlocal calls
        calls += 1
        if calls > 75:
            raise KeyboardInterrupt
        return fake_reply(name, item)

    fake.reply = dying
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, out="cut")
    fake.reply, fake.asked = fake_reply, []
    run(tmp_path, out="cut")
    for name in NAMES:
        files = [tmp_path / out / "questions" / f"{name}.jsonl" for out in ("cut", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()
    reports = [json.loads((tmp_path / out / "compare.json").read_text()) for out in ("cut", "whole")]
    for report in reports:
        for row in report["results"]:
            row.pop("seconds")
    assert reports[0] == reports[1]
    assert not {n for n, _ in fake.asked} & {"base"} and 100 <= len(fake.asked) <= 120
    fake.asked = []
    run(tmp_path, out="cut")
    assert fake.asked == []


@pytest.mark.parametrize("change", ["model", "data"])
def test_answers_of_other_settings_are_neither_mixed_nor_lost(fake: Fake, tmp_path: Path, change: str) -> None:
    run(tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "out" / "questions").iterdir()}
    if change == "model":
        (tmp_path / "sap" / "generation_config.json").write_text("{}")
    with pytest.raises(LostattnError, match="holds answers of another run .*choose another --out"):
        run(tmp_path, 59 if change == "data" else 60)
    assert {p: p.read_bytes() for p in (tmp_path / "out" / "questions").iterdir()} == before


def test_a_comparison_of_the_first_version_is_refused(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "answers-0-base.jsonl").write_text("key\n")
    with pytest.raises(LostattnError, match="comparison of lostattn 0.1.*choose another --out"):
        run(tmp_path)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["answers-0-base.jsonl"] and not fake.asked


def test_other_prompts_are_refused(fake: Fake, tmp_path: Path) -> None:
    def other(name: str, item: Item) -> Reply:
        found = fake_reply(name, item)
        return replace(found, prompt="another") if (name, item.row) == ("noise", 17) else found

    fake.reply = other
    with pytest.raises(LostattnError, match=r"row 17\): noise reads other prompt tokens"):
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
