"""`lostattn sweep` with the demo's model and questions; plans in place against exported checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from lostattn.patches.errors import LostattnError
from lostattn.serving.evaluation.store import alone_in
from lostattn.surgery.calibration import Calibration
from lostattn.surgery.chat import Chat
from lostattn.surgery.cli import main
from lostattn.surgery.demo.digits import KINDS
from lostattn.surgery.evaluation.evaluate import EvalSettings
from lostattn.surgery.evaluation.local import encode
from lostattn.surgery.evaluation.tasks import read_tasks
from lostattn.surgery.log_lines import lines_to
from lostattn.surgery.patch import patch_from_spec
from lostattn.surgery.planner import make_plan
from lostattn.surgery.spec import PatchSpec
from lostattn.surgery.sweep.draw import grid_charts
from lostattn.surgery.sweep.grid import Grid, make_points, read_grid
from lostattn.surgery.sweep.ready import BANDS, READY, grids, scaled
from lostattn.surgery.sweep.swap import load_with_plan, swap_plan
from lostattn.surgery.sweep.sweep import run_sweep
from lostattn.surgery.sweep.tables import breakdown_table, grid_table
from resumed import assert_same, environment, killed

N = 12
EMPTY = PatchSpec(layers="none", heads="all")
# neighbours differ in what could be left behind: tower's attention, queries, scores, levels, bands, presets
CHAIN = [
    PatchSpec(mode="vision_attention", layers="1-3", heads="all"),
    PatchSpec(mode="noise", seed=7, heads={0: [1], 4: [0, 1, 2]}, queries="after_image"),
    PatchSpec(preset="reference", layers="1-5", heads="0.3-0.6"),
    PatchSpec(preset="efficient", layers="2-4", heads="0.0-1.0"),
    PatchSpec(mode="uniform", layers="0-7", heads="all", blend=0.5),
    EMPTY,
]


def lostattn(*arguments: object) -> Result:
    found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn")
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
    return found


def of_depth(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The config of a model with other layers."""
    text = {**config["text_config"], "num_hidden_layers": layers, "layer_types": ["full_attention"] * layers}
    return {**config, "text_config": text}


def logits(chat: Chat, inputs: Sequence[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [chat.model(**one).logits for one in inputs]


def equal(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_plan_in_place_is_the_exported_checkpoint(
    demo: Path, demo_config: dict[str, Any], demo_chat: Chat, demo_calibration: Calibration, tmp_path: Path
) -> None:
    measured = tmp_path / "calibration.json"
    measured.write_text(json.dumps(demo_calibration.to_json()))

    def plan_of(spec: PatchSpec) -> Any:
        return make_plan(spec, demo_config, demo, lambda: Calibration.read(measured)).plan

    (asked,) = read_tasks(["digits"], limit=6)
    inputs = [encode(demo_chat.processor, item) for item in asked.items]
    plain, one = logits(demo_chat, inputs), load_with_plan(demo, demo_config, plan_of(EMPTY))
    assert equal(logits(one, inputs), plain), "the empty plan is the original"
    for number, spec in enumerate(CHAIN):
        swap_plan(one.model, plan_of(spec))
        wanted = spec if spec.preset == "reference" else spec.with_changes(calibration=str(measured))
        patch_from_spec(demo, tmp_path / str(number), wanted)
        exported = Chat.load(tmp_path / str(number))
        assert one.model.sap_plan == exported.model.sap_plan and one.model.config.sap == exported.model.config.sap
        assert equal(logits(one, inputs), logits(exported, inputs)), spec
        assert equal(logits(one, inputs), plain) == (spec is EMPTY), spec
        assert [one.generate(i, 4) for i in inputs[:2]] == [exported.generate(i, 4) for i in inputs[:2]]


def test_a_plan_of_another_shape_leaves_the_model_alone(demo: Path, demo_config: dict[str, Any]) -> None:
    one = load_with_plan(demo, demo_config, make_plan(CHAIN[0], demo_config, demo).plan)
    before, other = one.model.sap_plan, make_plan(EMPTY, of_depth(demo_config, 4), demo).plan
    with pytest.raises(LostattnError, match="the plan is for 4 layers"):
        swap_plan(one.model, other)
    assert one.model.sap_plan is before and one.model.model.sap_plan is before


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "mine.yaml"
    path.write_text("modes: [noise, uniform]\nlayers: [[0, 1], 5]\nheads: all\nqueries: [all]\n")
    return path


@pytest.fixture(scope="session")
def results(demo: Path, spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "out"
    found = lostattn(
        "sweep",
        demo,
        "--spec",
        "table2",
        "--spec",
        "heads",
        "--spec",
        spec,
        "--task",
        "digits",
        "--limit",
        N,
        "--out",
        out,
    )
    assert found.exit_code == 0, found.output
    assert "12 points of 3 grid(s), 11 different plans and the original" in found.stderr
    assert found.stderr.count("loading") == 1 and "clipped to 1-7" in found.stderr and "+ Vis. Attn." in found.stdout
    return out


def report_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "sweep.json").read_text()))


def test_sweep_has_every_point_against_the_original(results: Path) -> None:
    report = report_of(results)
    assert [g["name"] for g in report["grids"]] == ["table2", "heads", "mine"] and len(report["points"]) == 12
    assert len(report["results"]) == 12 == len({r["model"] for r in report["results"]})
    first, *others = report["results"]
    assert first["model"] == "original" and "difference" not in first and all("p_holm" in r for r in others)
    table2 = next(
        p["key"] for p in report["points"] if p["grid"] == "table2" and p["labels"]["mode"] == "patch_complexity"
    )
    heads = next(p["key"] for p in report["points"] if p["grid"] == "heads" and p["labels"]["heads"] == "[0.3, 0.6]")
    assert table2 == heads, "points of the same plan share their answers"
    for key, plan in report["plans"].items():
        assert len((results / "digits" / f"{key}.jsonl").read_text().splitlines()) == N and plan["sap"]["format"] == 1


def test_tables_have_the_papers_layout(results: Path) -> None:
    report = report_of(results)
    head, rows = grid_table(report, "table2", marked=False)
    assert head == ["Model / Variant", "Affected Layers", "digits"]
    assert [r[:2] for r in rows] == [
        ["model", "/"],
        ["+ Vis. Attn.", "[1, 7]"],
        ["+ Patch Comp.", "[1, 7]"],
        ["+ Noise", "[1, 7]"],
    ]
    assert "(" not in rows[0][2] and all("[" in r[2] for r in rows[1:])
    head, rows = grid_table(report, "heads")
    assert head == ["Model", "Heads", "digits"] and [r[1] for r in rows[1:]] == [
        "[0.0, 0.3]",
        "[0.3, 0.6]",
        "[0.6, 0.9]",
        "[0.2, 0.8]",
        "[0.0, 1.0]",
    ]
    head, rows = grid_table(report, "mine")
    assert head == ["Model", "Mode", "Layers", "digits"] and [r[1:3] for r in rows[1:]] == [
        ["noise", "0-1"],
        ["noise", "5"],
        ["uniform", "0-1"],
        ["uniform", "5"],
    ]
    found = breakdown_table(report, "heads", "digits")
    assert found is not None and found[0] == ["Heads", *sorted(KINDS), "accuracy"]
    text = (results / "sweep.md").read_text()
    assert "Affected Layers" in text and "| plan |" in text and "Versions:" in text and "paired 95 % interval" in text


def test_charts_are_curves_and_heat_maps(results: Path) -> None:
    assert sorted(grid_charts(report_of(results), "mine")) == ["mine-digits"]
    for name in ("table2-digits", "heads-digits", "mine-digits"):
        assert (results / f"{name}.png").read_bytes().startswith(b"\x89PNG") and f"{name}.png" in (
            results / "sweep.md"
        ).read_text()
    page = (results / "sweep.html").read_text()
    assert page.count("<svg") == 3 and "<script" not in page and "interval without 0" in page


def test_a_second_sweep_loads_nothing(results: Path, demo: Path) -> None:
    again = lostattn("sweep", demo, "--spec", "table8", "--task", "digits", "--limit", N, "--out", results, "--json")
    assert again.exit_code == 0 and "loading" not in again.stderr
    head, rows = grid_table(json.loads(again.stdout), "table8")
    assert head == ["Model", "original", "[0.0, 0.3]", "[0.3, 0.6]", "[0.6, 0.9]", "[0.2, 0.8]", "[0.0, 1.0]"]
    assert len(rows) == 1 and rows[0][0] == "model"


def test_what_another_process_has_under_way_is_waited_for(results: Path, demo: Path) -> None:
    asked, said = read_tasks(["digits"], limit=N), list[str]()
    report = run_sweep(str(demo), ["table2"], asked, results, EvalSettings())
    key = next(p["key"] for p in report["points"] if p["labels"]["mode"] == "noise")
    other = alone_in(results / ".locks" / key)
    assert other.__enter__()

    def tell(text: str) -> None:
        said.append(text)
        if text.startswith("waiting for another process"):
            other.__exit__(None, None, None)

    with lines_to(tell):
        found = run_sweep(str(demo), ["table2"], asked, results, EvalSettings())
    assert sum(text.startswith("waiting for another process: point 3 of 3 (noise") for text in said) == 1
    assert [r["model"] for r in found["results"]] == ["original", *(p["key"] for p in found["points"])]


@pytest.mark.slow
def test_a_sweep_that_was_killed_ends_like_one_that_was_not(
    demo: Path, demo_calibration: Calibration, tmp_path: Path
) -> None:
    spec, measured = tmp_path / "two.yaml", tmp_path / "calibration.json"
    spec.write_text("modes: [noise]\nlayers: [[0, 1], 5]\nheads: all\n")
    measured.write_text(json.dumps(demo_calibration.to_json()))
    arguments: list[object] = ["sweep", demo, "--spec", spec, "--task", "digits", "--limit", 32, "--batch", 4]
    arguments += ["--calibration", measured]
    killed(arguments, tmp_path / "cut", "digits/plan-*.part.jsonl", 9, environment(tmp_path))
    for place in ("cut", "whole"):
        assert lostattn(*arguments, "--out", tmp_path / place).exit_code == 0
    assert_same(tmp_path / "cut", tmp_path / "whole")


def test_windows_of_other_depths_are_the_same_parts() -> None:
    assert scaled((0, 27), 28, 6) == (0, 5) and scaled((14, 20), 28, 28) == (14, 20)
    assert [scaled(w, 28, 6) for w in ((0, 6), (7, 13), (14, 20), (21, 27))] == [(0, 1), (2, 2), (3, 4), (5, 5)]
    assert scaled((24, 29), 32, 2) == (1, 1) and scaled((0, 1), 32, 4) == (0, 0)
    assert scaled((21, 27), 28, 64) == (48, 63)


@pytest.mark.parametrize("name", READY)
def test_ready_grids_fit_every_depth(
    name: str, demo: Path, demo_config: dict[str, Any], demo_calibration: Calibration
) -> None:
    (grid,) = grids([name], demo_config)
    points = make_points(grid, demo_config, demo, lambda: demo_calibration)
    assert len(points) == {"table2": 3, "heads": 5, "table8": 5, "layers": 6}[name]
    assert name != "layers" or "of 28 layers, the model has 8: 0-6 as 0-1" in grid.notes[0]
    (same,) = grids([name], of_depth(demo_config, 28))
    assert not same.notes and (name != "layers" or same.axes["layers"][-1] == "21-27")
    assert len(BANDS) == 5


WRONG = {
    "modes: [nonsense]\nlayers: all\nheads: all": "unknown mode 'nonsense'",
    "mode: noise": "unknown keys mode",
    "queries: [some]": "unknown queries 'some'",
    "layers: [[1, 2, 3]]": "no pair of two numbers",
    "modes: []": "is empty",
    "modes: [noise": "is not YAML",
    "modes: [1]": "must be texts",
    "layers: [[0, 9]]\nheads: all": "layer 8 does not exist",
    "heads: [0.31-0.32]": "holds no head",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_specs_are_one_sentence_before_anything_runs(
    text: str, demo: Path, demo_config: dict[str, Any], demo_calibration: Calibration, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(LostattnError, match=WRONG[text]):
        make_points(read_grid(tmp_path / "x.yaml"), demo_config, demo, lambda: demo_calibration)


def test_unknown_grids_are_told(demo: Path, tmp_path: Path) -> None:
    for given, told in (("table9", "choose one of table2"), ("no.yaml", "--spec no.yaml cannot be read")):
        found = lostattn("sweep", demo, "--spec", given, "--task", "digits", "--out", tmp_path / "out")
        assert found.exit_code == 2 and told in found.stderr and not (tmp_path / "out").exists()


def test_a_grid_too_large_is_refused() -> None:
    axes = {"layers": [str(i) for i in range(101)], "heads": [f"{i}:0" for i in range(100)]}
    with pytest.raises(LostattnError, match="has 10100 points"):
        Grid("large", axes).specs()
