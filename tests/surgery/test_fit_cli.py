"""Fitted priors from the command line: calibrate, plan, patch, bench; kill -9; and every door to what was written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from doors import answer as answered
from doors import run as opened
from lostattn.patches import load_patched
from lostattn.patches.mode import MODES
from lostattn.patches.plan import Pixels, Plan
from lostattn.surgery.calibration import Calibration
from lostattn.surgery.chat import Chat
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.checkpoint.write import write_patched
from lostattn.surgery.cli import main
from lostattn.surgery.demo.builtin import builtin_examples
from resumed import environment


def run(*arguments: object) -> Result:
    found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn")
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
    return found


def mistake(*arguments: object) -> str:
    found = run(*arguments)
    assert found.exit_code == 2 and found.stdout == "", found.output
    return found.stderr.splitlines()[-1]


FIT = ("--data", "builtin", "--samples", 8, "--fit", "--groups", "1:0;4:0,1", "--rounds", 2, "--max-new-tokens", 3)


@pytest.fixture(scope="module")
def measured(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "c.json"
    done = run("calibrate", demo, *FIT, "--out", out)
    assert done.exit_code == 0 and "rounds" in done.stdout, done.output
    assert "--scores fitted --groups '1:0;4:0,1' --calibration" in done.stderr
    assert [p.name for p in out.parent.iterdir()] == ["c.json"], "no partial file is left"
    return out


def test_from_calibration_to_answers(measured: Path, demo: Path, tmp_path: Path) -> None:
    wanted = ("--preset", "efficient", "--scores", "fitted", "--groups", "1:0;4:0,1", "--calibration", measured)
    done = run("patch", demo, tmp_path / "p", *wanted)
    assert done.exit_code == 0 and "scores fitted" in done.stdout and "weighted sum of fewness" in done.stdout, (
        done.output
    )
    assert "`fewness`, `prior`" in (tmp_path / "p" / "README.md").read_text()
    assert run("verify", tmp_path / "p").exit_code == 0
    model = load_patched(tmp_path / "p")
    plan, (fit,) = model.sap_plan, Calibration.read(measured).fits
    assert (plan.scores, plan.weights, plan.levels) == ("fitted", fit.weights, fit.levels)
    assert plan.whole_groups(4) == (0, 1) and plan.features == fit.features
    chat = Chat.load(tmp_path / "p")
    question = builtin_examples(1)[0]
    assert chat.answer(question.open(), question.question, 3) in ("yes", "no", *"ABCD")


def test_a_killed_run_ends_with_the_same_file(measured: Path, demo: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of the fit."""
    out = tmp_path / "c.json"
    command = [sys.executable, "-m", "lostattn.surgery.cli", "calibrate", str(demo), *map(str, FIT), "--out", str(out)]
    process = subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial, until = tmp_path / "c.json.fit0.partial", time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if partial.exists() and partial.read_bytes().count(b"\n") >= 10:  # key, eight answers, the start
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert not out.exists() and partial.exists()
    done = run("calibrate", demo, *FIT, "--out", out)
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["fits"] == json.loads(measured.read_text())["fits"]


def test_a_fit_of_what_the_frontier_lets_go(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    more = ("--frontier", "--width", 1, "--fit", "--kv-budget", "0.5,0.75", "--rounds", 1, "--max-new-tokens", 2)
    done = run("calibrate", demo, "--data", "builtin", "--samples", 8, *more, "--out", out)
    assert done.exit_code == 0 and "--scores fitted --kv-budget 0.5 --calibration" in done.stderr, done.output
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]
    wanted = ("--preset", "efficient", "--scores", "fitted", "--calibration", out, "--json")
    for budget, groups in (("0.5", 8), ("0.75", 4)):
        found = json.loads(run("plan", demo, *wanted, "--kv-budget", budget).stdout)
        assert (
            sum(map(len, found["whole_kv_groups"].values()))
            == groups
            == sum(map(len, found["plan"]["weights"].values()))
        )
    told = run(
        "bench",
        "plans",
        demo,
        "--calibration",
        out,
        "--questions",
        8,
        "--groups",
        "8",
        "--random",
        0,
        "--json",
        "--out",
        tmp_path / "plans",
    )
    rows = {row["plan"]: row for row in json.loads(told.stdout)["rows"]}
    assert rows["fitted"]["groups"] == rows["efficient"]["groups"] and rows["fitted"]["versus_original"]["n"] == 8
    assert len(list((tmp_path / "plans").rglob("plan-*"))) >= 5, "answers of its own"
    assert "no fit of exactly these 12 KV groups" in mistake("plan", demo, *wanted, "--kv-budget", "0.25")


def test_mistakes(demo: Path, measured: Path, tmp_path: Path) -> None:
    calibrate = ("calibrate", demo, "--data", "builtin", "--out", tmp_path / "c.json")
    for more, says in (
        (("--fit",), "name them with --groups, or add --frontier"),
        (("--groups", "1:0"), "add --fit"),
        (("--kv-budget", "0.5"), "add --fit"),
        (("--rounds", 3), "add --fit"),
        (("--fit", "--groups", "1:0", "--kv-budget", "0.5"), "give one of them"),
        (("--fit", "--groups", "9:0"), "layers 0-7"),
        (("--fit", "--groups", "1"), "cannot read groups"),
        (("--fit", "--frontier", "--kv-budget", "half"), "such as 0.75,0.5"),
        (("--fit", "--frontier", "--kv-budget", "1.5"), "such as 0.75,0.5"),
        (("--fit", "--groups", "1:0", "--samples", 7), "at least 8 questions"),
        (("--fit", "--groups", "1:0", "--width", 2), "--width"),
        (("--fit", "--groups", "1:0", "--mode", "drop"), "nothing can be fitted"),
    ):
        assert says in mistake(*calibrate, *more), more
    assert not list(tmp_path.iterdir())
    plan = ("plan", demo, "--scores", "fitted")
    for more, says in (
        ((), "calibrate --fit"),
        (("--calibration", measured, "--groups", "1:0"), "no fit of exactly these 1"),
        (("--calibration", measured, "--heads", "0.3-0.6"), "for whole KV groups"),
        (("--calibration", measured, "--heads", "0.3-0.6", "--dynamic"), "needs levels of known heads"),
        (("--calibration", measured, "--groups", "1:0;4:0,1", "--mode", "noise"), "made with mode"),
        (("--calibration", measured, "--mode", "drop"), "leave --scores out"),
    ):
        assert says in mistake(*plan, *more), more


# -- every door


def test_the_exported_file_obeys_the_numbers(tiny_llava: Path, tmp_path: Path) -> None:
    """With lostattn and without it, bit for bit; and other weights answer otherwise."""
    given = {
        "scores": "fitted",
        "heads": {1: (0, 1), 2: (0, 1, 2, 3)},
        "levels": {1: (1.0, 0.5), 2: (0.0, 0.2, 0.4, 2.0)},
        "features": ("fewness", "prior", "row"),
        "options": MODES["patch_complexity"].settle("efficient"),
        "pixels": Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    }
    logits = []
    for number, scale in enumerate((1.0, 2.0)):
        weights = {1: ((scale, 2.0, -1.0),), 2: ((0.5, scale, 1.0), (0.0, -2.0, 3.0 * scale))}
        plan = Plan(
            family="llava",
            mode="patch_complexity",
            preset="efficient",
            queries="all",
            num_layers=3,
            num_heads=4,
            num_kv_heads=2,
            weights=weights,
            **given,
        )
        folder = write_patched(resolve_source(tiny_llava), plan, tmp_path / f"sap{number}", card="# card\n").path
        cache = tmp_path / f"cache{number}"
        cache.mkdir()
        name, module, remote = answered(opened(folder, cache, lostattn=False, arguments="trust_remote_code=True"))
        assert module.startswith("transformers_modules.")
        _, _, local = answered(opened(folder, cache, lostattn=True))
        assert remote == local
        logits.append(local)
    assert max(abs(a - b) for a, b in zip(*logits, strict=True)) > 1e-3
