"""Preset `efficient` from the command line: calibrate, frontier, plan, patch, bench; and mode `drop` there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lostattn.patches import load_patched
from lostattn.surgery.calibration import Calibration
from lostattn.surgery.cli import main
from lostattn.surgery.demo.builtin import builtin_examples

Run = Callable[..., Result]


def run(*arguments: object) -> Result:
    found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn")
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
    return found


@pytest.fixture(scope="module")
def measured(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of the demo model with its frontier, on few questions."""
    out = tmp_path_factory.mktemp("efficient") / "c.json"
    done = run("calibrate", demo, "--data", "builtin", "--samples", 8, "--frontier", "--width", 2, "--out", out)
    assert done.exit_code == 0 and "Measured frontier" in done.stdout and "--preset efficient" in done.stderr, (
        done.output
    )
    assert [p.name for p in out.parent.iterdir()] == ["c.json"], "no partial file is left"
    return out


def mistake(*arguments: object) -> str:
    found = run(*arguments)
    assert found.exit_code == 2 and found.stdout == "", found.output
    return found.stderr.splitlines()[-1]


def test_late_layers_go_first(measured: Path) -> None:
    """The demo model has its answer behind layer 4: the search has to find that by itself."""
    frontier = Calibration.read(measured).frontier
    assert frontier is not None and len(frontier.alone) == frontier.kv_groups == 16
    assert {g[0] for g in frontier.chosen(3)} <= {5, 6, 7}
    assert {(0, 0), (0, 1), (1, 0), (1, 1)} - set(frontier.chosen(8)), "early layers are needed"
    assert frontier.steps[2].harm.agreement >= 0.9 > frontier.steps[-1].harm.agreement


def test_the_frontier_is_shown_and_drawn(measured: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = run("frontier", measured, "--plot", tmp_path / "f.png", "--json")
    assert found.exit_code == 0 and len(json.loads(found.stdout)["steps"]) == 16
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert "Every KV group alone" in run("frontier", measured).stdout
    assert "cannot write" in mistake("frontier", measured, "--plot", tmp_path / "none" / "f.png")


def test_a_plan_is_a_point_of_the_frontier(measured: Path, demo: Path, tmp_path: Path) -> None:
    options = ("--preset", "efficient", "--calibration", measured)
    for more, groups in (("--kv-budget", 0.5), 8), (("--kv-budget", 0.24), 13), ((), None):
        found = json.loads(run("plan", demo, *options, *more, "--json").stdout)
        count = sum(len(x) for x in found["whole_kv_groups"].values())
        assert count == groups or groups is None
        assert 1 <= found["frontier_steps"] <= 16
        share = found["predicted"][2]["kv_bytes_saved_share"]
        assert abs(share - count / 16) < 0.02
        one, many = found["predicted_decode"][4:]
        assert (one["batch"], many["batch"]) == (1, 32) and 0 < one["saved_share"] < many["saved_share"] < share + 1e-9
    out = tmp_path / "out"
    done = run("patch", demo, out, *options, "--keep-agreement", 1.0)
    assert done.exit_code == 0 and "\n> " in done.stdout and "Bytes that one decode step reads" in done.stdout
    plan = load_patched(out).sap_plan
    assert (plan.scores, plan.queries, plan.preset) == ("log", "all", "efficient") and plan.levels
    assert run("verify", out).exit_code == 0
    spec = json.loads((out / "lostattn.json").read_text())["spec"] if (out / "lostattn.json").exists() else ""
    assert not spec or "keep_agreement: 1.0" in spec


def test_groups_by_name(demo: Path, measured: Path) -> None:
    for preset in ("paper", "efficient"):
        found = run("plan", demo, "--preset", preset, "--calibration", measured, "--groups", "3:0,1;5:1", "--json")
        assert json.loads(found.stdout)["whole_kv_groups"] == {"3": [0, 1], "5": [1]}
        assert "frontier" not in json.loads(found.stdout)


def test_mistakes(demo: Path, measured: Path, tmp_path: Path, demo_calibration: Any) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(demo_calibration.to_json()))
    plan, efficient = ("plan", demo), ("--preset", "efficient", "--calibration", measured)
    for more, says in (
        (("--keep-agreement", 0.9), "add --preset efficient"),
        (("--preset", "efficient", "--keep-agreement", 0.9), "--calibration FILE"),
        (("--preset", "efficient", "--calibration", old, "--kv-budget", 0.5), "calibrate --frontier"),
        ((*efficient, "--kv-budget", 0.5, "--layers", 3), "leave --layers"),
        ((*efficient, "--groups", "3:0", "--heads", "all"), "leave --layers and --heads out"),
        ((*efficient, "--groups", "3:2"), "KV heads 0-1"),
        ((*efficient, "--groups", "8:0"), "layers 0-7"),
        ((*efficient, "--groups", "3"), "cannot read groups"),
        ((*efficient, "--mode", "noise"), "measured with mode"),
        ((*efficient, "--temperature", 2), "measured with temperature 1"),
        ((*efficient, "--kv-budget", 0.0, "--keep-agreement", 1.0), "most that can be saved"),
        (("--mode", "drop", "--scores", "log"), "leave --scores out"),
        (("--mode", "drop", "--blend", 0.5), "leave --blend out"),
        (("--mode", "drop", "--option", "a=b"), "no option"),
    ):
        assert says in mistake(*plan, *more), more
    assert "holds no measured KV groups" in mistake("frontier", old)
    for more, says in (
        (("--calibration", old), "no frontier"),
        (("--calibration", measured, "--groups", "17"), "no point"),
    ):
        assert says in mistake("bench", "plans", demo, *more, "--questions", 4, "--out", tmp_path / "plans")
    assert "another --seed" in mistake(
        "bench", "plans", demo, "--calibration", measured, "--seed", 1000, "--out", tmp_path / "plans"
    )


def test_mistakes_in_measuring(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    for more, says in (
        (("--mode", "noise"), "--mode says how KV groups are measured: add --frontier"),
        (("--sensitivity", "--width", 3), "--width says"),
        (("--max-new-tokens", 3), "--max-new-tokens says"),
        (("--frontier", "--mode", "x"), "unknown mode"),
        (("--frontier", "--option", "pool=max"), "no option pool=max"),
        (("--frontier", "--option", "pool"), "NAME=VALUE"),
    ):
        assert says in mistake("calibrate", demo, "--data", "builtin", "--out", out, *more), more
    assert not list(tmp_path.iterdir())


def test_single_groups_alone(demo: Path, tmp_path: Path) -> None:
    """--sensitivity of a mode with an option, and of one without levels; no frontier comes of it."""
    for mode, more in (("drop", ()), ("vision_attention", ("--option", "pool=max"))):
        out = tmp_path / f"{mode}.json"
        options = ("--sensitivity", "--mode", mode, *more, "--max-new-tokens", 2)
        assert run("calibrate", demo, "--data", "builtin", "--samples", 2, "--out", out, *options).exit_code == 0
        found = Calibration.read(out).frontier
        assert found is not None and found.settings["mode"] == mode and len(found.alone) == 16 and not found.steps
        assert max(found.alone, key=lambda g: found.alone[g].kl)[0] < 5, "the last layers have little to do"
        plan = ("plan", demo, "--preset", "efficient", "--mode", mode, "--calibration", out)
        assert "no frontier, only single groups" in mistake(*plan, "--keep-agreement", 0.5, *more)
        assert "only single groups" in mistake("frontier", out, "--plot", tmp_path / "f.png")
        assert run("frontier", out).exit_code == 0


def test_drop_takes_no_levels(demo: Path, measured: Path, tmp_path: Path) -> None:
    uniform = json.loads(run("plan", demo, "--mode", "uniform", "--groups", "2:0", "--json").stdout)
    for preset in ("paper", "efficient", "reference"):
        found = run("plan", demo, "--mode", "drop", "--preset", preset, "--groups", "2:0", "--json")
        raw = json.loads(found.stdout)
        assert raw["plan"]["scores"] == "raw" and "levels" not in raw["plan"]
        if preset != "reference":
            assert raw["predicted"] == uniform["predicted"]
    assert run("patch", demo, tmp_path / "d", "--mode", "drop", "--groups", "2:0;3:1").exit_code == 0
    picture = tmp_path / "p.png"
    builtin_examples(1)[0].open().save(picture)
    answers = set()
    for attention in ("auto", "closed", "any_mask", "eager"):
        asked = run("ask", tmp_path / "d", "Is there a 7?", "--image", picture, "--attention", attention)
        assert asked.exit_code == 0
        answers.add(asked.stdout.strip())
    assert answers <= {"yes", "no"} and len(answers) == 1


def test_bench_plans(demo: Path, measured: Path, tmp_path: Path) -> None:
    arguments = (
        "bench",
        "plans",
        demo,
        "--calibration",
        measured,
        "--questions",
        24,
        "--groups",
        "2,12",
        "--random",
        1,
        "--out",
        tmp_path / "plans",
    )
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["questions"] == 24 and found["original_accuracy"] > 0.8 and len(found["rows"]) == 16
    for row in found["rows"]:
        wanted = row["kv_groups"] / 16 if row["plan"] != "token pruning" else pytest.approx(row["visual_kv_saved"])
        assert len(row["groups"]) == row["kv_groups"] and row["visual_kv_saved"] == wanted
        against = row["versus_original"]
        assert against["low"] <= against["difference"] <= against["high"] and against["n"] == 24
        assert against["difference"] == pytest.approx(row["accuracy"] - found["original_accuracy"])
        assert (row["efficient_minus_this"] is None) == (row["plan"] == "efficient")
    first = next(r for r in found["rows"] if r["plan"] == "first layers" and r["kv_groups"] == 12)
    assert first["groups"] == [[layer, g] for layer in range(6) for g in (0, 1)]
    assert first["efficient_minus_this"]["difference"] > 0.1
    answered = {p: p.stat().st_mtime_ns for p in (tmp_path / "plans").rglob("*.part.jsonl")}
    again = run(*arguments)
    assert "minus this" in again.stdout and not answered and f"{24}/24 answers" not in again.stderr
