"""The command line: what goes to stdout and stderr, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from lostattn.surgery import calibrate as calibrating
from lostattn.surgery.cli import COMMANDS, main
from lostattn.surgery.demo.builtin import builtin_examples
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "models" / "llava_mha"
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder; a traceback is never right."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def invoke(*arguments: object) -> Result:
        found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn")
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
        assert "Traceback" not in found.output
        return found

    return invoke


@pytest.fixture(scope="module")
def patched(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lostattn.surgery import patch_checkpoint

    out = tmp_path_factory.mktemp("cli") / "patched"
    patch_checkpoint(demo, out, layers="1-5", heads="all")
    return out


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    builtin_examples(1)[0].open().save(tmp_path / "p.png")
    return tmp_path / "p.png"


def mistake(found: Result) -> str:
    """The sentence of a refused command: exit code 2, nothing on stdout, one line on stderr besides progress."""
    lines = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    assert found.exit_code == 2 and found.stdout == "" and len(lines) == 1, found.output
    assert found.stderr.rstrip().endswith(lines[0]), "the sentence comes last"
    return lines[0]


def commands(group: click.Group = main, names: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Names of all commands, of groups within groups too."""
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        found += commands(command, (*names, name)) if isinstance(command, click.Group) else [(*names, name)]
    return found


def test_help_of_every_command(run: Run) -> None:
    assert len(commands()) > len(COMMANDS)
    for names in ((), *commands()):
        text = run(*names, "--help")
        assert text.exit_code == 0 and text.stdout.startswith("Usage: lostattn") and text.stderr == ""
        if names and names[0] not in ("families", "modes", "tasks", "doctor"):
            assert "Example" in text.stdout and f"lostattn {' '.join(names)}" in text.stdout, names
    assert run("--version").stdout.startswith("lostattn ")


@pytest.mark.parametrize(
    "arguments", [["x"], ["plan"], ["patch", "a"], ["ask", "a", "b"], ["plan", "a", "--seed", "x"], ["bench"]]
)
def test_usage(run: Run, arguments: list[str]) -> None:
    found = run(*arguments)
    assert found.exit_code == 2 and found.stdout == "" and "Usage: lostattn" in found.stderr


def test_every_json_is_json_and_nothing_else(
    run: Run, demo: Path, patched: Path, picture: Path, tmp_path: Path
) -> None:
    question = "Is there a 7 in the image?"
    for arguments in (
        ["families"],
        ["modes"],
        ["plan", demo, "--heads", "0.2-0.8"],
        ["show", patched],
        ["verify", patched],
        ["verify", patched, "--quick"],
        ["patch", demo, tmp_path / "a", "--layers", "none"],
        ["unpatch", patched, tmp_path / "b"],
        ["patch", demo, tmp_path / "c", "--heads", "3:0,1,3;4:2", "--dry-run"],
        ["ask", patched, question, "--image", picture, "--compare", demo, "--attention", "eager"],
        ["calibrate", demo, "--data", "builtin", "--samples", "2", "--out", tmp_path / "c.json"],
        ["bench", "attention", "--visual-tokens", "16", "--seconds", "0.001"],
    ):
        found = run(*arguments, "--json")
        assert found.exit_code == 0, found.output
        assert isinstance(json.loads(found.stdout), dict | list)
        assert "Loading weights" not in found.stderr
    assert not (tmp_path / "c").exists() and (tmp_path / "b" / "config.json").is_file()


def test_plan_says_what_patch_does(run: Run, demo: Path, tmp_path: Path) -> None:
    options = ["--heads", "3:0,1,3;4:2", "--mode", "vision_attention", "--option", "pool=max", "--blend", "0.5"]
    planned, patch = run("plan", demo, *options, "--json"), run("patch", demo, tmp_path / "out", *options, "--json")
    assert json.loads(patch.stdout)["plan"] == json.loads(planned.stdout)["plan"]
    found = json.loads(planned.stdout)
    assert found["plan"]["heads"] == {"3": [0, 1, 3], "4": [2]} and found["plan"]["options"] == {"pool": "max"}
    assert found["whole_kv_groups"] == {"3": [0], "4": []}
    assert [row["visual_tokens"] for row in found["predicted"]] == [1024, 4096, 16384]
    text = run("plan", demo, *options)
    assert "4 of 32 heads in 2 of 8 layers" in text.stdout and "16,384" in text.stdout
    assert json.loads(run("show", tmp_path / "out", "--json").stdout)["plan"] == found["plan"]
    assert "mode vision_attention, pool=max" in run("show", tmp_path / "out").stdout


def test_notes_go_to_stderr(run: Run, demo: Path) -> None:
    found = run("plan", demo, "--heads", "all", "--temperature", "3")
    assert found.stderr.count("note: ") == 2 and "note" not in found.stdout
    assert "clipped to 1-7" in found.stderr and "--temperature" in found.stderr


def test_spec_files(run: Run, demo: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("heads: all\nlayers: 2\nmode: noise\nseed: 7\noptions: {law: dirichlet}\n")
    plan = json.loads(run("plan", demo, "--spec", tmp_path / "s.yaml", "--seed", "8", "--json").stdout)["plan"]
    assert (plan["mode"], plan["seed"], plan["options"]) == ("noise", 8, {"law": "dirichlet"})
    assert plan["heads"] == {"2": [0, 1, 2, 3]}
    (tmp_path / "s.yaml").write_text("heads: 3")
    assert "cannot read heads 3" in mistake(run("plan", demo, "--spec", tmp_path / "s.yaml"))
    assert "cannot read the spec file" in mistake(run("plan", demo, "--spec", tmp_path / "none.yaml"))


WRONG_PLANS = [
    (["--layers", "0,9"], "layers 0-7"),
    (["--layers", "x"], "cannot read layers"),
    (["--layers", "3-1"], "backwards"),
    (["--heads", "0.6-0.3"], "0 <= low <= high"),
    (["--heads", "3:0,9"], "within 0-3"),
    (["--heads", "3:0,0"], "twice"),
    (["--heads", "3:"], "heads of layer 3"),
    (["--heads", "3:0;4:1", "--layers", "3"], "leave --layers out"),
    (["--heads", "all", "--blend", "2"], "blend"),
    (["--heads", "all", "--seed", "-1"], "seed"),
    (["--preset", "x"], "efficient"),
    (["--mode", "x"], "unknown mode"),
    (["--scores", "x"], "prob_rescaled"),
    (["--queries", "x"], "after_image"),
    (["--rank-by", "x"], "mass, score"),
    (["--option", "x"], "NAME=VALUE"),
    (["--option", "x=y"], "no option x=y"),
    (["--calibration", "none.json"], "cannot read the calibration"),
    (["--dynamic", "--heads", "all"], "--dynamic"),
    (["--dynamic", "--preset", "efficient"], "static heads"),
    (["--dynamic", "--scores", "log"], "log"),
    (["--revision", "main", "--heads", "all"], "Hub ids"),
]


@pytest.mark.parametrize(("options", "says"), WRONG_PLANS, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_mistakes_in_plans(run: Run, demo: Path, tmp_path: Path, options: list[str], says: str) -> None:
    assert says in mistake(run("patch", demo, tmp_path / "out", *options))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here"] and not list((tmp_path / "here").iterdir())


def test_mistakes_elsewhere(run: Run, demo: Path, patched: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "bad.jsonl").write_text('{"image": "p.png", "question": "Q"}\n{')
    Image.new("RGB", (1, 500)).save(tmp_path / "thin.png")
    ask = ["ask", patched, "Q", "--image"]
    calibrate = ["calibrate", demo, "--out", tmp_path / "c.json", "--data"]
    for arguments, says in (
        (["plan", patched], "already patched"),
        (["plan", tmp_path / "none"], "does not exist"),
        (["plan", tmp_path], "config.json"),
        (["show", demo], "not patched by lostattn"),
        (["verify", "none"], "not a folder"),
        (["unpatch", demo, "x"], "not patched"),
        (["patch", demo, patched, "--heads", "all"], "exists: choose another"),
        (["unpatch", patched, demo], "exists"),
        ([*ask, "none.png"], "does not exist"),
        ([*ask, tmp_path], "is a folder"),
        ([*ask, tmp_path / "bad.png"], "no picture"),
        ([*ask, tmp_path / "thin.png"], "1 x 500 pixels"),
        ([*ask, picture, "--dtype", "nn"], "unknown dtype"),
        ([*ask, picture, "--device", "x"], "unknown device"),
        ([*ask, picture, "--attention", "x"], "attention path"),
        ([*ask, picture, "--compare", "none"], "not a model folder"),
        (["ask", demo, "Q", "--image", picture, "--attention", "eager"], "not patched"),
        (["ask", demo, "<|image_pad|>", "--image", picture], "special tokens"),
        (["ask", GOLDEN, "Q", "--image", picture], "processor"),
        ([*calibrate, "none"], "does not exist"),
        ([*calibrate, tmp_path / "bad.jsonl"], "row 2"),
        (["calibrate", patched, "--data", "builtin", "--out", "c"], "already patched"),
        (["calibrate", demo, "--data", "builtin", "--out", tmp_path], "is a folder"),
        (["calibrate", demo, "--data", "builtin", "--out", "a/b/c.json"], "make it first"),
        (["calibrate", demo, "--data", "builtin", "--out", picture], "add --force"),
        (["bench", "attention", "--visual-tokens", "0"], "1 or more"),
        (["bench", "attention", "--visual-tokens", "x"], "visual tokens"),
        (["demo", "--out", tmp_path], "not empty"),
        (["demo", "--seed", "1000", "--out", "x"], "take another --seed"),
    ):
        assert says in mistake(run(*arguments)), arguments
    assert not (tmp_path / "c.json").exists() and not list((tmp_path / "here").iterdir())


def test_a_failed_check_exits_1(run: Run, patched: Path, tmp_path: Path) -> None:
    assert run("unpatch", patched, tmp_path / "plain").exit_code == 0
    run("patch", tmp_path / "plain", tmp_path / "out", "--layers", "none", "--weights", "copy")
    assert run("verify", tmp_path / "out").exit_code == 0
    (tmp_path / "out" / "chat_template.jinja").write_text("{{ 1 }}")
    found = run("verify", tmp_path / "out")
    assert found.exit_code == 1 and "FAILED" in found.stdout and "not as it was written" in found.stderr
    assert json.loads(run("verify", tmp_path / "out", "--json").stdout)["ok"] is False


def test_ask(run: Run, demo: Path, patched: Path, picture: Path) -> None:
    question, answer = builtin_examples(1)[0].question, builtin_examples(1)[0].answer
    assert run("ask", demo, question, "--image", picture).stdout == f"{answer}\n"
    both = run("ask", patched, question, "--image", picture, "--compare", demo).stdout.splitlines()
    assert both[0].startswith(f"{patched} (patched): ") and both[1] == f"{demo} (plain): {answer}"
    found = json.loads(run("ask", patched, question, "--image", picture, "--attention", "any_mask", "--json").stdout)
    assert list(found[0]["paths"]) == ["any_mask"] and found[0]["patched"]


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int) -> Any:
    """Let Ctrl-C come while a sample is measured."""
    observe, calls = calibrating.observe, []

    def watched(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == at:
            raise KeyboardInterrupt
        return observe(*args)

    monkeypatch.setattr(calibrating, "observe", watched)
    return calls


def test_calibrate_goes_on_after_an_interrupt(
    run: Run, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["calibrate", demo, "--data", "builtin", "--samples", "5", "--out"]
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    assert run(*arguments, whole).exit_code == 0
    calls = interrupted(monkeypatch, at=4)
    found = run(*arguments, cut)
    assert found.exit_code == 1 and "Aborted" in found.stderr and found.stdout == "" and not cut.exists()
    again = run(*arguments, cut)
    assert again.exit_code == 0 and len(calls) == 4 + 2, "three samples were kept"
    assert cut.read_bytes() == whole.read_bytes() and sorted(p.name for p in tmp_path.glob("*.partial")) == []
    assert "calibrating 5/5" in again.stderr and "calibrating" not in again.stdout
    assert run("plan", demo, "--calibration", cut, "--layers", "3").exit_code == 0
    assert run(*arguments, cut, "--force").exit_code == 0


def test_an_interrupted_patch_leaves_nothing(
    run: Run, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, at=2)
    found = run("patch", demo, tmp_path / "out")
    assert found.exit_code == 1 and "Aborted" in found.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here"]


def test_as_a_module(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "lostattn").symlink_to(ROOT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    call = [sys.executable, "-m", "lostattn.surgery.cli", "plan", str(demo)]
    found = subprocess.run(
        [*call, "--heads", "all", "--json"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert found.returncode == 0 and len(json.loads(found.stdout)["plan"]["heads"]) == 7
    assert found.stderr == ""
    wrong = subprocess.run([*call[:3], "verify", "none"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "Error: none is not a folder: give the folder that 'lostattn patch' wrote\n"
