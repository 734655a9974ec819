"""The examples of the documents run as they stand, on the demo's model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


def run(name: str, folder: Path, *words: str) -> str:
    command = [sys.executable, str(ROOT / "docs" / "examples" / f"{name}.py"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_example_is_run_by_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [path.stem for path in EXAMPLES if f'"{path.stem}"' not in tests and path.name not in tests] == []


@pytest.mark.slow
def test_the_notebook_runs() -> None:
    command = [sys.executable, str(ROOT / "docs" / "notebook.py"), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patch_and_ask", "own_prior", "read_measures"])
def test_examples(name: str, tmp_path: Path) -> None:
    picture = str(ROOT / "docs" / "examples" / "digits.png")
    said = run(name, tmp_path, str(ROOT / "surgery" / "demo" / "model"), picture)
    answers = [line.split(": ")[-1] for line in said.splitlines()]
    if name == "patch_and_ask":
        assert answers[0] == answers[2] in ("yes", "no") and (tmp_path / "out" / "patched" / "lostattn.json").exists()
    if name == "own_prior":
        assert answers[-1] in ("yes", "no")
    if name == "read_measures":
        assert len(answers) == 9


@pytest.mark.slow
def test_calibrate_and_search(tmp_path: Path) -> None:
    said = run("calibrate_and_search", tmp_path, str(ROOT / "surgery" / "demo" / "model"), "digits:8")
    assert "$ lostattn patch" in said and (tmp_path / "out" / "efficient" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.vllm
def test_serve_and_query(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    pytest.importorskip("openai")
    model, picture = str(ROOT / "surgery" / "demo" / "model"), str(ROOT / "docs" / "examples" / "digits.png")
    run("patch_and_ask", tmp_path, model, picture)
    assert run("serve_and_query", tmp_path, "out/patched", picture).splitlines()[-1] in ("answer: yes", "answer: no")


@pytest.mark.slow
def test_heal(tmp_path: Path) -> None:
    """A few steps: the KL is told, the healed folder is a patched one, and its weights are others."""
    model = ROOT / "surgery" / "demo" / "model"
    said = run("heal", tmp_path, str(model), "digits:12@5", "1-2", "2").splitlines()
    assert said[0].startswith("step 2: KL ") and float(said[0].split()[3]) > 0
    patched, healed = ((tmp_path / "out" / name / "model.safetensors").read_bytes() for name in ("patched", "healed"))
    assert patched == (model / "model.safetensors").read_bytes() != healed
    assert (tmp_path / "out" / "healed" / "lostattn.json").is_file()
