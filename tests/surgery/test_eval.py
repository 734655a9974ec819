"""`lostattn eval` with the demo's model and questions, as a user runs it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lostattn.patches.errors import LostattnError
from lostattn.serving.stats import paired_difference
from lostattn.serving.tasks.task import Item
from lostattn.surgery.chat import Chat
from lostattn.surgery.cli import main
from lostattn.surgery.demo.digits import held_out
from lostattn.surgery.evaluation import local
from lostattn.surgery.evaluation.local import Encoded, encode
from lostattn.surgery.evaluation.tasks import read_tasks
from lostattn.surgery.patch import patch_from_spec
from lostattn.surgery.spec import PatchSpec
from PIL import Image
from resumed import assert_same, environment, killed

N = 24


def lostattn(*arguments: object) -> Result:
    found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn")
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
    return found


@pytest.fixture(scope="session")
def control(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model with nothing but a uniform prior: it is bad."""
    out = tmp_path_factory.mktemp("control") / "uniform"
    patch_from_spec(demo, out, PatchSpec(mode="uniform", layers="all", heads="all"))
    return out


@pytest.fixture(scope="session")
def results(demo: Path, control: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eval") / "out"
    found = lostattn("eval", demo, control, "--task", "digits", "--limit", N, "--out", out, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == json.loads((out / "eval.json").read_text())
    assert f"digits, model: {N}/{N} answers" in found.stderr and "/s" in found.stderr
    return out


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_are_those_of_the_chat_and_carry_what_was_decided(results: Path, demo: Path, demo_chat: Chat) -> None:
    found = rows(results / "digits" / "model.jsonl")
    asked = held_out(N)
    assert [r["index"] for r in found] == list(range(N))
    for row, question in zip(found, asked, strict=True):
        assert row["response"] == demo_chat.answer(question.image, question.question, 16)
        assert row["gold"] == question.answer and row["correct"] == (row["answer"] == question.answer)
        assert row["finish"] == "stop" and row["prompt_version"] == "digits-default/1" and "letters/" in row["parser"]


def test_report_carries_everything(results: Path) -> None:
    report = json.loads((results / "eval.json").read_text())
    first, second = report["results"]
    right = [[r["correct"] for r in rows(results / "digits" / f"{name}.jsonl")] for name in ("model", "uniform")]
    expected = paired_difference(*right, 0)
    assert first["accuracy"]["share"] > 0.85 and second["difference"]["difference"] == expected.difference < 0
    assert (second["difference"]["low"], second["difference"]["high"]) == (expected.low, expected.high)
    assert second["p"] == second["p_holm"] < 0.05 and second["lost"] > second["gained"]
    assert first["paths"] == {"plain": N} and all("closed" in path for path in second["paths"])
    assert {"torch", "lostattn"} <= set(report["versions"]) and "cores" in report["hardware"] and report["seed"] == 0
    assert (
        report["tasks"][0]["n"] == N
        and report["tasks"][0]["parser"]
        and report["models"][1]["sap"]["mode"] == "uniform"
    )
    text, page = (results / "eval.md").read_text(), (results / "eval.html").read_text()
    for told in ("loses accuracy", "McNemar", "unparsed", "digits-default/1", "Versions:", "choice/accuracy"):
        assert told in text
    assert (
        page.count('class="lane"') == 2
        and "loses accuracy" in page
        and "<script" not in page
        and 'href="http' not in page
    )


def test_a_second_call_asks_nothing_and_a_further_model_may_join(results: Path, demo: Path, control: Path) -> None:
    before = {p: p.read_bytes() for p in (results / "digits").iterdir()}
    again = lostattn("eval", control, demo, "--task", "digits", "--limit", N, "--out", results)
    assert again.exit_code == 0 and "everything was answered before" in again.stderr
    assert "loading" not in again.stderr and "gains" in again.stdout
    assert {p: p.read_bytes() for p in (results / "digits").iterdir()} == before
    lostattn("eval", demo, control, "--task", "digits", "--limit", N, "--out", results)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "other settings": (["--limit", "5"], "holds answers of another run"),
    "unknown task": (["--task", "nonsense"], "unknown task 'nonsense'"),
    "no data": (["--task", "pope", "--data", "nowhere"], "does not exist"),
    "no rule": (["--limit", str(N), "--harness", "vlmevalkit"], "no rule 'vlmevalkit'"),
    "unknown backend": (["--backend", "x"], "unknown backend 'x'"),
    "batch for a server": (["--backend", "http://127.0.0.1:1/v1", "--batch", "3"], "--batch"),
    "key for nobody": (["--api-key", "x"], "--api-key"),
    "power of one model": (["--power"], "name two or more"),
    "lmms without a server": (["--via", "lmms-eval"], "give --backend"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_sentence(case: str, results: Path, demo: Path) -> None:
    given, told = MISTAKES[case]
    task = [] if "--task" in given else ["--task", "digits"]
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    found = lostattn("eval", demo, *task, *given, "--out", results)
    assert found.exit_code == 2 and told in found.stderr, found.output
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before


def test_data_is_found_by_task(tmp_path: Path) -> None:
    picture = held_out(1)[0].image
    picture.save(tmp_path / "a.png")
    row = {
        "image": "a.png",
        "question": "Is there a 7 in the image?",
        "answer": "yes",
        "question_id": 1,
        "category": "random",
    }
    for name in ("pope", "digits"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({**row, "id": name}) + "\n")
    both = read_tasks(["pope", "digits"], [str(tmp_path)])
    assert [(a.task.name, len(a.items), a.max_tokens) for a in both] == [("pope", 1, 1024), ("digits", 1, 16)]
    named = read_tasks(["pope", "digits"], [f"pope={tmp_path / 'pope.jsonl'}"], max_tokens=3, limit=2)
    assert [(a.data, len(a.items), a.max_tokens) for a in named][0] == ("pope.jsonl", 1, 3) and len(named[1].items) == 2
    with pytest.raises(LostattnError, match="names no task that is evaluated"):
        read_tasks(["pope"], ["digits=x"])
    with pytest.raises(LostattnError, match="holds no data of task mmmu"):
        read_tasks(["pope", "mmmu"], [str(tmp_path)])


def test_several_pictures_stand_where_the_prompt_has_them(demo_chat: Chat) -> None:
    (one,) = read_tasks(["digits"], limit=2)
    first, second = one.items
    item = replace(first, prompt=("A ", 0, " and ", 1, "?"), images=(*first.images, *second.images))
    ids = encode(demo_chat.processor, item)["input_ids"][0]
    visual = (ids == demo_chat.model.config.image_token_id).tolist()
    runs = [i for i in range(1, len(visual)) if visual[i] and not visual[i - 1]]
    sizes = [i.width * i.height // 28**2 for i in item.pictures()]
    assert len(runs) == 2 and sum(visual) == sum(sizes) and visual[runs[0] : runs[0] + sizes[0]] == [True] * sizes[0]


def test_inputs_are_made_once(demo_chat: Chat) -> None:
    (one,) = read_tasks(["digits"], limit=3)
    encoded = Encoded(demo_chat.processor, one.items)
    (window,) = encoded.windows()
    assert encoded.inputs(window) is encoded.inputs(window)


def test_windows_follow_the_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file, data = tmp_path / "a.png", io.BytesIO()
    Image.new("L", (30, 40)).save(file)
    Image.new("L", (60, 40)).save(data, "PNG")
    pictures = [
        Image.new("RGB", (30, 40)),
        {"bytes": data.getvalue()},
        "a.png",
        {"path": "nowhere.png"},
        b"broken",
        None,
    ]
    items = [Item(str(i), "", {}, (0,), "", images=(p,), folder=tmp_path) for i, p in enumerate(pictures)]
    assert Encoded(None, items).windows() == [range(0, 6)]
    monkeypatch.setattr(local, "PIXELS", 3600)
    assert Encoded(None, items).windows() == [range(0, 2), range(2, 6)]
    monkeypatch.setattr(local, "PIXELS", 1)
    assert Encoded(None, items).windows() == [range(0, 1), range(1, 2), range(2, 3), range(3, 6)]
    monkeypatch.setattr(local, "WINDOW", 2)
    assert Encoded(None, items).windows()[2:] == [range(2, 3), range(3, 5), range(5, 6)]


@pytest.mark.slow
def test_a_run_that_was_killed_ends_like_one_that_was_not(demo: Path, tmp_path: Path) -> None:
    arguments = ["eval", demo, "--task", "digits", "--limit", 40, "--batch", 4]
    killed(arguments, tmp_path / "cut", "digits/model.part.jsonl", 12, environment(tmp_path))
    for place in ("cut", "whole"):
        assert lostattn(*arguments, "--out", tmp_path / place).exit_code == 0
    assert_same(tmp_path / "cut", tmp_path / "whole")
