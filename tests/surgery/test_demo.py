"""`lostattn demo`, end to end on few questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from answered import digit_answers
from lostattn.patches import load_patched
from lostattn.patches.errors import LostattnError
from lostattn.surgery.chat import Chat
from lostattn.surgery.checkpoint.write import verify
from lostattn.surgery.demo.builtin import builtin_examples
from lostattn.surgery.demo.demo import run_demo
from lostattn.surgery.demo.digits import KINDS, held_out
from lostattn.surgery.demo.experiments import SAVED, headline
from lostattn.surgery.demo.folder import CALIBRATION, MODES, folder_name, specs, unpack_model
from lostattn.surgery.demo.report import layer_table, markdown, page, plan_table, series, table
from lostattn.surgery.log_lines import lines_to
from PIL import Image

QUESTIONS = 24


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def report(out: Path, said: list[str]) -> dict[str, Any]:
    with lines_to(said.append):
        return run_demo(out, questions=QUESTIONS)


def rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in report["results"]}


def test_every_number_carries_its_circumstances(report: dict[str, Any], out: Path) -> None:
    assert report["questions"] == QUESTIONS and report["seed"] == 0 and report["threads"] == 1
    assert {"torch", "transformers", "lostattn", "python"} <= set(report["versions"])
    assert "cores" in report["hardware"] and "letters/" in report["parser"] and "numerals/" in report["parser"]
    for row in report["results"]:
        assert 0 <= row["accuracy"] <= 1 and 0 <= row["unparsed"] <= QUESTIONS and row["seconds"] > 0
        assert set(row["by_kind"]) == set(KINDS)
        assert min(row["by_kind"].values()) <= row["accuracy"] <= max(row["by_kind"].values())
    assert json.loads((out / "report.json").read_text()) == report


def test_the_original_is_good_and_modes_are_there(report: dict[str, Any], out: Path) -> None:
    found = rows(report)
    original = found["original"]
    assert (
        original["accuracy"] >= 0.9
        and original["versus_original"] is None
        and original["paths"] == {"plain": QUESTIONS}
    )
    assert set(MODES) == {"patch_complexity", "vision_attention", "noise", "uniform"} <= set(found)
    assert set(found) == {"original", *specs(out)}
    for name, row in found.items():
        if name != "original":
            difference = row["versus_original"]
            assert difference["n"] == QUESTIONS and difference["low"] <= difference["difference"] <= difference["high"]
            assert difference["difference"] == pytest.approx(row["accuracy"] - original["accuracy"])
            assert row["paths"] and 0 <= row["agreement"] <= 1


def test_the_negative_control_loses(report: dict[str, Any]) -> None:
    (control,) = [row for row in report["results"] if row["heads"] == "32 of 32"]
    assert control["layers"] == "0-7" and control["accuracy"] <= 0.6
    assert control["verdict"] == "loses accuracy"
    assert rows(report)["patch_complexity"]["accuracy"] > control["accuracy"]


def test_layers_and_plans_are_tried(report: dict[str, Any]) -> None:
    layers = {row["name"]: row for row in report["layers"]}
    assert [f"layer {i}" for i in range(8)] + ["layers 0-1", "layers 2-3", "layers 4-5", "layers 6-7"] <= list(layers)
    assert layers["layers 2-3"]["accuracy"] < layers["layer 7"]["accuracy"]
    found = report["plans"]["rows"]
    for saved in SAVED:
        names = {row["plan"] for row in found if row["visual_kv_saved"] == pytest.approx(saved)}
        assert names == {"efficient", "fitted", "token pruning", "paper's band", "first layers", "last layers"} | {
            "random 0",
            "random 1",
        }
    for name, points in series(report["plans"]).items():
        assert points[0] == (0, 100 * report["plans"]["original_accuracy"]) and len(points) == 4, name


def test_the_headline_says_what_was_found(report: dict[str, Any]) -> None:
    """Other figures give another sentence."""
    said = headline(report["layers"], report["plans"])
    assert said == report["headline"] and "of the original's accuracy are left" in said
    free = [{**r, "difference": {"difference": 0.0}} for r in report["layers"]]
    assert "no layer costs 5 points of accuracy or more, layers 0, 1, 2, 3, 4, 5, 6 and 7 cost less" in headline(
        free, report["plans"]
    )
    worse = [{**r, "accuracy": 0.0} for r in report["plans"]["rows"]]
    assert "efficient 0.0 %" in headline(report["layers"], {**report["plans"], "rows": worse})


def test_tables_for_people(report: dict[str, Any], out: Path) -> None:
    head, *body = table(report)
    assert all(len(row) == len(head) for row in body) and [row[0] for row in body] == list(rows(report))
    for found in (layer_table(report["layers"]), plan_table(report["plans"])):
        assert len({len(row) for row in found}) == 1
    assert (out / "report.html").read_text() == page(report, out / "gallery.png")
    text = (out / "report.md").read_text()
    assert text == markdown(report) and "loses accuracy" in text and "Unparsed answers: original 0" in text
    for part in (report["hardware"], report["parser"], report["versions"]["torch"], "seed 0", f"{QUESTIONS} questions"):
        assert part in text


def test_what_is_said_and_left(report: dict[str, Any], out: Path, said: list[str], demo: Path) -> None:
    assert sum(line.endswith(f"{QUESTIONS}/{QUESTIONS} answers") or "answers," in line for line in said) >= len(
        rows(report)
    )
    for name in specs(out):
        assert verify(out / folder_name(name)).ok
    for path in demo.iterdir():
        assert (out / "base" / path.name).read_bytes() == path.read_bytes()
    with Image.open(out / "picture.png") as picture:
        assert picture.mode == "RGB"
    plan = load_patched(out / "patch_complexity").sap_plan
    assert plan.mode == "patch_complexity" and plan.layers == (1, 2, 3, 4, 5, 6, 7) and plan.band is None
    assert (out / "calibration.json").read_bytes() == CALIBRATION.read_bytes()


def test_answers_are_the_same_one_by_one(report: dict[str, Any], demo_chat: Chat, out: Path) -> None:
    """Batches change no answer."""
    asked = held_out(12, seed=0)
    patched = Chat.load(out / "patch_complexity")
    for chat in (demo_chat, patched):
        assert digit_answers(chat, 12) == [chat.answer(q.image, q.question, 4) for q in asked]


def test_the_demo_is_evaluated_on_other_questions() -> None:
    calibrated = {(e.question, e.image.tobytes()) for e in builtin_examples(64)}
    assert not calibrated & {(q.question, q.image.tobytes()) for q in held_out(300, seed=0)}
    with pytest.raises(LostattnError, match="take another --seed"):
        run_demo("unused", seed=1000)
    assert not Path("unused").exists()


def test_threads_are_given_back(report: dict[str, Any]) -> None:
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    try:
        with pytest.raises(LostattnError):
            run_demo(__file__)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_the_folder_is_never_somebody_elses(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "mine" / "base").mkdir(parents=True)
    (tmp_path / "mine" / "base" / "config.json").write_text("{}")
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for name, force, says in (
        ("file", True, "not a folder"),
        ("link", True, "not a folder"),
        ("mine", False, "not empty"),
        ("mine", True, "holds 'thesis.tex', which is not of the demo"),
    ):
        with pytest.raises(LostattnError, match=says):
            unpack_model(tmp_path / name, force)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "mine" / "thesis.tex").unlink()
    (tmp_path / "mine" / "report.json").write_text("{}")
    base = unpack_model(tmp_path / "mine", force=True)
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["base"]
    assert (base / "config.json").read_bytes() == (demo / "config.json").read_bytes()
    assert unpack_model(tmp_path / "new" / "deep", force=False).is_dir()
