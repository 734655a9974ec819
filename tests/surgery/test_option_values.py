"""Wishes on the command line that mean nothing, or two things: one sentence, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from lostattn.patches.errors import LostattnError
from lostattn.surgery.cli import main
from lostattn.surgery.patch import patch_checkpoint

MEANINGLESS = [
    (["--layers", ""], "layers are empty"),
    (["--layers", "  "], "layers are empty"),
    (["--heads", ""], "heads are empty"),
    (["--heads", "0-1"], "0.0-1.0"),
    (["--heads", "0-1"], "3:0,1"),
    (["--groups", ""], "cannot read groups"),
    (["--preset", ""], "unknown preset ''"),
    (["--mode", ""], "unknown mode ''"),
    (["--scores", ""], "unknown scores ''"),
    (["--queries", ""], "unknown queries ''"),
    (["--rank-by", ""], "unknown rank_by ''"),
    (["--calibration", ""], "calibration is empty"),
    (["--spec", ""], "spec file"),
    (["--revision", ""], "--revision is empty"),
    (["--option", ""], "NAME=VALUE"),
    (["--option", "range=unit", "--option", "range=raw"], "range is given twice"),
    (["--seed", ""], "--seed"),
    (["--seed", "1", "--seed", "2"], "--seed is given twice"),
    (["--layers", "1", "--layers", "1"], "--layers is given twice"),
    (["--dynamic", "--static"], "given twice"),
    (["--seed", "\u0663"], "--seed must be a whole number"),
    (["--seed", "1_0"], "--seed must be a whole number"),
    (["--blend", "0.\u0665"], "--blend must be a number"),
    (["--blend", "nan"], "--blend must be a number"),
    (["--blend", "0_1"], "--blend must be a number"),
    (["--temperature", "1e-46"], "float32"),
    (["--temperature", "1e39"], "float32"),
    (["--temperature", "0"], "temperature"),
    (["--temperature", "inf"], "temperature"),
    (["--kv-budget", "nan"], "--kv-budget"),
    (["--layers", "3-1"], "backwards"),
    (["--layers", "1,1"], "twice"),
    (["--heads", "0.6-0.3"], "low <= high"),
]


@pytest.mark.parametrize(("options", "says"), MEANINGLESS)
def test_refused(demo: Path, tmp_path: Path, options: list[str], says: str) -> None:
    found = CliRunner().invoke(main, ["patch", str(demo), str(tmp_path / "out"), *options])
    assert found.exit_code == 2 and says in found.stderr and not (tmp_path / "out").exists()
    assert "Traceback" not in found.output


@pytest.mark.parametrize("blend", ["0", "-0", "0.0", "1e-60"])
def test_a_blend_of_nothing_is_told(demo: Path, blend: str) -> None:
    found = CliRunner().invoke(main, ["plan", str(demo), "--layers", "3", "--heads", "all", "--blend", blend])
    assert found.exit_code == 0 and "--blend 0 leaves every score as it was" in found.stderr


def test_flags_and_lists_may_come_again(demo: Path) -> None:
    found = CliRunner().invoke(
        main, ["plan", str(demo), "--layers", "3", "--heads", "all", "--json", "--json", "--seed", " 7 "]
    )
    assert found.exit_code == 0, found.stderr


@pytest.mark.parametrize(
    "options",
    [{"layers": ""}, {"heads": ""}, {"heads": (0, 1)}, {"heads": "0-1"}, {"temperature": 1e-46}, {"mode": " "}],
)
def test_the_same_in_python(demo: Path, tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(LostattnError):
        patch_checkpoint(demo, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
