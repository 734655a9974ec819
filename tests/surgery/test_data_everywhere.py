"""Every form of data in every command that takes `--data`: the same rows reach the model, or the same sentence is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_forms
import pytest
from click.testing import CliRunner, Result
from data_forms import COLOURS, FORMS, QUESTION, SIZE
from lostattn.patches.errors import LostattnError
from lostattn.surgery import bench_plans, calibrate, calibration, conform
from lostattn.surgery.chat import Chat
from lostattn.surgery.cli import main
from lostattn.surgery.diagnosis import diagnose as diagnosis
from lostattn.surgery.evaluation import compare as compare_module
from lostattn.surgery.evaluation import evaluate as evaluation
from lostattn.surgery.sweep import sweep
from lostattn.surgery.tracing import compare as tracing
from PIL import Image, ImageColor

Seen = list[tuple[str, str, Any]]  # question, answer, opened picture
COMMANDS: dict[str, list[str]] = {
    "calibrate": ["calibrate", "MODEL", "--out", "OUT/c.json", "--data", "DATA"],
    "diagnose": ["diagnose", "MODEL", "--out", "OUT", "--data", "DATA"],
    "trace": ["trace", "MODEL", "--out", "OUT", "--data", "DATA"],
    "eval": ["eval", "MODEL", "--task", "digits", "--out", "OUT", "--data", "DATA"],
    "eval of free questions": ["eval", "MODEL", "--out", "OUT", "--data", "DATA"],
    "eval by name": ["eval", "MODEL", "--task", "digits", "--out", "OUT", "--data", "digits=DATA"],
    "sweep": ["sweep", "MODEL", "--spec", "table2", "--task", "digits", "--out", "OUT", "--data", "DATA"],
    "compare": ["compare", "MODEL", "MODEL", "--no-bench", "--out", "OUT", "--data", "DATA"],
    "bench plans": ["bench", "plans", "MODEL", "--calibration", "c.json", "--out", "OUT", "--data", "DATA"],
    "conform": ["conform", "MODEL", "--data", "DATA"],
    "ask": ["ask", "MODEL", "--data", "DATA"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, demo_chat: Chat) -> Seen:
    """What reaches the work behind every command; the work itself is left out, since it would run a model."""
    found: Seen = []

    def note(rows: Any) -> None:
        found.extend((question, answer, picture) for question, answer, picture in rows)
        raise LostattnError("seen")

    def examples(rows: Any) -> None:
        note((e.question, e.answer, e.open()) for e in rows)

    def items(asked: Any) -> None:
        note((i.prompt[1], i.gold, i.pictures()[0]) for i in asked[0].items)

    def answer(self: Chat, picture: Image.Image, question: str, max_new_tokens: int = 64) -> str:
        found.append((question, "", picture))
        return "no"

    monkeypatch.setattr(Chat, "load", lambda *args, **more: demo_chat)
    monkeypatch.setattr(Chat, "answer", answer)
    monkeypatch.setattr(calibrate, "calibrate", lambda chat, family, rows, *more: examples(rows))
    monkeypatch.setattr(diagnosis, "diagnose", lambda models, rows, *more: examples(rows))
    monkeypatch.setattr(bench_plans, "bench_plans", lambda source, found, asked, *more: items([asked]))
    monkeypatch.setattr(calibration.Calibration, "read", lambda path: None)
    monkeypatch.setattr(compare_module, "compare", lambda base, patched, asked, *more: items(asked))
    monkeypatch.setattr(tracing, "compare", lambda chat, cases, *more: examples(e for e, boxes in cases if boxes))
    monkeypatch.setattr(evaluation, "run_eval", lambda models, asked, *more: items(asked))
    monkeypatch.setattr(sweep, "run_sweep", lambda base, specs, asked, *more: items(asked))
    turns: Callable[..., None] = lambda folder, cases, *more: note(  # noqa: E731
        (c.turns[0].text, "", c.turns[0].images[0]) for c in cases
    )
    monkeypatch.setattr(conform, "conform", turns)
    return found


def run(command: str, model: Path, data: str) -> Result:
    words = [w.replace("MODEL", str(model)).replace("OUT", "out").replace("DATA", data) for w in COMMANDS[command]]
    Path("out").mkdir(exist_ok=True)
    done = CliRunner().invoke(main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exc_info)
    return done


def check(command: str, done: Result, seen: Seen) -> None:
    """The whole data came, in its order; `conform` and `ask` need no answers."""
    assert done.exit_code == (0 if command == "ask" else 2) and (command == "ask" or "seen" in done.output), done.output
    assert [q for q, _, _ in seen] == [QUESTION.format(i) for i in range(4)], command
    if command not in ("conform", "ask"):
        assert [a for _, a, _ in seen] == ["no", "yes", "no", "yes"], command
    for (_, _, picture), colour in zip(seen, COLOURS, strict=True):
        assert picture.size == SIZE and picture.getpixel((1, 1)) == ImageColor.getrgb(colour), command


@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_every_command(form: str, tmp_path: Path, demo: Path, seen: Seen) -> None:
    data = FORMS[form](tmp_path / "d")
    for command in COMMANDS:
        seen.clear()
        check(command, run(command, demo, data), seen)


def test_the_hub_in_every_command(tmp_path: Path, demo: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    with data_forms.hub(monkeypatch, tmp_path) as asked:
        for command in COMMANDS:
            seen.clear()
            check(command, run(command, demo, "someone/colours:all@v2#test"), seen)
    assert set(asked) == {("someone/colours", "all", "v2")}


def test_the_demos_questions_in_every_command(demo: Path, seen: Seen) -> None:
    first: Seen = []
    for command in COMMANDS:
        seen.clear()
        done = run(command, demo, "digits:5")
        assert "seen" in done.output or done.exit_code == 0, done.output
        first = first or list(seen)
        assert [(q, p.tobytes()) for q, _, p in seen] == [(q, p.tobytes()) for q, _, p in first] and len(seen) == 5, (
            command
        )


def test_the_questions_that_rank_heads_judge_no_model(demo: Path, seen: Seen) -> None:
    for command in COMMANDS:
        seen.clear()
        done = run(command, demo, "builtin")
        judging = command.split()[0] in ("eval", "sweep", "compare", "bench")
        assert ("questions that heads are ranked on: take --data digits@0" in done.output) == judging, (
            command,
            done.output,
        )
        assert bool(seen) != judging


BAD: dict[str, tuple[list[Any] | str, str]] = {
    "nothing": ("nowhere.jsonl", "the data nowhere.jsonl does not exist: give"),
    "URL": ("https://example.com/data.jsonl", "is a URL, and none is fetched"),
    "digits": ("digits:many", "write digits:200"),
    "no rows": ([], "has no rows"),
    "two pictures": ([{"image": ["a.png", "b.png"]}], "row 1: the image is a list of 2 pictures"),
    "no picture": ([{"image": {"bytes": None, "path": None}}], "row 1"),
    "URL of one": ([{"image": {"url": "http://x/a.png"}}], "row 1"),
    "list of URLs": ([{"image": [{"url": "http://x/a.png"}]}], "row 1"),
    "missing": ([{"image": "a.png"}], "row 1: image"),
    "half a picture": ([{"image": data_forms.text("red")[:81]}], "row 1: the image is damaged base64 text"),
    "long nonsense": ([{"image": "x" * 5000}], "row 1: image"),
    "number": ([{"image": 5}], "row 1: the image is 5"),
    "no question": ([{"image": data_forms.text("red"), "question": None}], "row 1 has no "),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_sentence_in_every_command(name: str, demo: Path, seen: Seen) -> None:
    data, says = BAD[name]
    if not isinstance(data, str):
        given = [
            {"question": "Is there a 1 in the image?", "answer": "yes", "boxes": data_forms.BOXES, **row}
            for row in data
        ]
        data = str(data_forms.jsonl(Path("bad.jsonl"), given))
    for command in COMMANDS:
        done = run(command, demo, data)
        lines = [line for line in done.output.splitlines() if line and not line.startswith("starting")]
        assert done.exit_code == 2 and len(lines) == 1 and lines[0].startswith("Error: "), (command, done.output)
        assert says in done.output and len(done.output) < 500, (command, done.output)


@pytest.mark.parametrize("form", FORMS)
def test_a_model_really_answers_about_every_form(
    form: str, tmp_path: Path, demo: Path, demo_chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chat, "load", lambda *args, **more: demo_chat)
    data = FORMS[form](tmp_path / "d")
    done = CliRunner().invoke(
        main, ["ask", str(demo), "--data", data, "--samples", "2", "--max-new-tokens", "3", "--json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [r["expected"] for r in found] == ["no", "yes"] and all(r["answers"][0]["answer"] for r in found)


def test_the_grammar_stands_in_every_help() -> None:
    for command in COMMANDS.values():
        words = command[:2] if command[0] == "bench" else command[:1]
        told = " ".join(CliRunner().invoke(main, [*words, "--help"]).output.split())
        for part in (
            "JSONL, JSON, CSV, TSV or parquet file",
            "imagefolder",
            "OWNER/NAME[:CONFIG][@REVISION]",
            "digits[:N][@SEED]",
            "#SPLIT",
        ):
            assert part in told, (command, part)


ASK_MISTAKES = (
    (["Q"], "give --image or --video with a QUESTION"),
    (["Q", "--image", "a.png", "--data", "digits:1"], "not several of them"),
    (["--image", "a.png"], "--image needs a QUESTION"),
    (["--data", "digits:1", "--boxes", "b.json"], "leave --boxes out"),
    (["Q", "--image", "a.png", "--samples", "2"], "--samples counts rows"),
)


@pytest.mark.parametrize("words, says", ASK_MISTAKES)
def test_ask_uses_every_option(words: list[str], says: str, demo: Path) -> None:
    done = CliRunner().invoke(main, ["ask", str(demo), *words])
    assert done.exit_code == 2 and says in done.output
