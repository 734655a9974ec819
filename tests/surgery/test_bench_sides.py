"""Plans that `bench serve` patches by itself: by name, and from a file such as a frontier's choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from lostattn.patches.errors import LostattnError
from lostattn.serving.sides import folder_fingerprint, read_sides
from lostattn.surgery.bench_sides import READY, plan_folders, ready_spec
from lostattn.surgery.cli import main

LAYERS = {"all": [0, 1, 2], "but-first": [1, 2], "every-second": [1]}


@pytest.mark.parametrize("name", READY)
def test_layers_of_the_ready_plans(name: str) -> None:
    assert (
        list(ready_spec(name, 28).layers or ())
        == {  # type: ignore[arg-type]
            "all": list(range(28)),
            "but-first": list(range(1, 28)),
            "every-second": list(range(1, 28, 2)),
        }[name]
    )
    if name != "all":
        with pytest.raises(LostattnError, match="take plan all"):
            ready_spec(name, 1)


def test_folders_are_made_once(src: Path, tmp_path: Path) -> None:
    (tmp_path / "frontier.yaml").write_text("mode: uniform\ngroups: {2: [1]}\n")
    plans = [*READY, str(tmp_path / "frontier.yaml")]
    folders = plan_folders(src, plans, tmp_path / "plans")
    assert [f.name for f in folders] == [*READY, "frontier"]
    _, *sides = read_sides(src, folders)
    assert [list(s.plan.layers) for s in sides if s.plan] == [*LAYERS.values(), [2]]
    assert sides[3].plan is not None and sides[3].plan.whole_groups(2) == (1,)
    before = [folder_fingerprint(f) for f in folders]
    assert plan_folders(src, plans, tmp_path / "plans") == folders
    assert [folder_fingerprint(f) for f in folders] == before, "so that an interrupted run goes on"
    (tmp_path / "frontier.yaml").write_text("mode: uniform\ngroups: {1: [1]}\n")
    with pytest.raises(LostattnError, match="another plan"):
        plan_folders(src, plans, tmp_path / "plans")


def test_two_plans_of_one_name(src: Path, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("mode: uniform\nlayers: all\nheads: all\n")
    with pytest.raises(LostattnError, match="two plans are called all"):
        plan_folders(src, ["all", str(tmp_path / "all.yaml")], tmp_path / "plans")
    assert not (tmp_path / "plans").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("--plan", "al"), "did you mean all"), ((), "--plan"), (("--plan", "none.yaml"), "none.yaml")],
)
def test_mistakes(src: Path, tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    found = CliRunner().invoke(main, ["bench", "serve", str(src), *arguments, "--out", str(tmp_path / "out")])
    assert found.exit_code == 2 and word in found.stderr and "Traceback" not in found.output
    assert not (tmp_path / "out").exists() and json.loads((src / "config.json").read_text())
