"""`lostattn doctor`, `families`, `modes`: what this installation can do."""

from __future__ import annotations

import importlib.util
import json

import pytest
from click.testing import CliRunner
from lostattn.patches.family import FAMILIES
from lostattn.patches.mode import MODES
from lostattn.surgery import doctor
from lostattn.surgery.cli import main


@pytest.fixture(scope="module")
def found() -> dict[str, doctor.Check]:
    return {check.part: check for check in doctor.diagnose()}


def test_the_core_works_here(found: dict[str, doctor.Check]) -> None:
    for part in ("python", "torch", "transformers", "attention", "torchvision", "processors"):
        assert found[part].state == "ok", found[part]
    assert "closed form equals the eager form" in found["attention"].detail
    assert all(check.state in ("ok", "missing") and check.detail for check in found.values())


@pytest.mark.parametrize("part", ["datasets", "vllm"])
def test_what_is_optional_is_missing_not_broken(found: dict[str, doctor.Check], part: str) -> None:
    there = importlib.util.find_spec(part) is not None
    assert found[part].state == ("ok" if there else "missing")
    assert there or "pip install" in found[part].detail


def test_what_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("first line\nsecond line")

    def silent() -> str:
        raise KeyError

    monkeypatch.setattr(doctor, "_torch", broken)
    monkeypatch.setattr(doctor, "_processors", silent)
    run = CliRunner().invoke(main, ["doctor", "--json"])
    states = {row["part"]: row for row in json.loads(run.stdout)}
    assert run.exit_code == 1 and "mend what is broken" in run.stderr
    assert states["torch"]["state"] == "broken" and states["torch"]["detail"] == "RuntimeError: first line"
    assert states["processors"]["detail"] == "KeyError: KeyError"


def test_an_attention_that_differs_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from lostattn.patches import closed

    original = closed.closed_attention
    monkeypatch.setattr(closed, "closed_attention", lambda job: original(job) + 0.01)
    check = doctor._run("attention", doctor._attention)
    assert check.state == "broken" and "differ by" in check.detail


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    states = {check.part: check for check in doctor.diagnose()}
    assert {states[part].state for part in ("torchvision", "processors", "datasets", "vllm")} == {"missing"}
    assert "the one that matches torch" in states["torchvision"].detail


def test_the_table_and_exit_code_0() -> None:
    run = CliRunner().invoke(main, ["doctor"])
    assert run.exit_code == 0 and run.stdout.splitlines()[0].split() == ["part", "state", "detail"] and not run.stderr


def test_families_and_modes_list_all() -> None:
    families = json.loads(CliRunner().invoke(main, ["families", "--json"]).stdout)
    assert (
        {row["family"] for row in families} == set(FAMILIES) >= {"qwen2_5_vl", "llava", "llava_next", "llava_onevision"}
    )
    assert next(row for row in families if row["family"] == "llava")["layers"] == [18, 23]
    modes = json.loads(CliRunner().invoke(main, ["modes", "--json"]).stdout)
    assert {row["mode"] for row in modes} == set(MODES) and all(row["prior"] for row in modes)
    for command, names in (("families", FAMILIES), ("modes", MODES)):
        text = CliRunner().invoke(main, [command]).stdout
        assert all(f"\n{name} " in text for name in names)
