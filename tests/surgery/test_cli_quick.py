"""Listings, help and refusals answer before torch is loaded: what each of these commands has imported when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lostattn.surgery.cli import COMMANDS
from lostattn.surgery.demo.folder import MODEL

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "vllm", "scipy", "matplotlib", "datasets", "ray")
CODE = f"""
import sys
from lostattn.surgery.cli import main
sys.argv[0] = "lostattn"
try:
    main()
finally:
    print("HEAVY", sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "lostattn").symlink_to(ROOT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    return tmp_path


def run(here: Path, *arguments: str, code: str = CODE) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as its script starts it."""
    environment = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, cwd=here
    )


def light(found: subprocess.CompletedProcess[str]) -> bool:
    assert "Traceback" not in found.stderr, found.stderr
    return found.stderr.endswith("HEAVY []\n")


@pytest.mark.parametrize("line", ["--help", "--version", "modes", "families", "tasks", "modes --json", "tasks --json"])
def test_listings(here: Path, line: str) -> None:
    found = run(here, *line.split())
    assert found.returncode == 0 and found.stdout and light(found), found.stderr


@pytest.mark.parametrize("name", [*COMMANDS, "bench serve", "bench plans"])
def test_help_of_every_command(here: Path, name: str) -> None:
    found = run(here, *name.split(), "--help")
    assert found.returncode == 0 and found.stdout.startswith("Usage: lostattn") and light(found), found.stderr


REFUSED = {
    "modse": "did you mean modes?",
    "patch a b --mod noise": "--mode",
    "patch a b --mode nois": "did you mean noise?",
    "patch MODEL full": "full exists",
    "patch ./none out": "does not exist",
    "plan ../none/x": "does not exist",
    "patch MODEL out --layers 5-2": "runs backwards",
    "plan MODEL --heads 0.6-0.3": "0 <= low <= high <= 1",
    "patch MODEL out --spec no.yaml": "spec file",
    "plan MODEL --calibration no.json": "cannot read the calibration",
    "unpatch none out": "not a folder",
    "show none": "not a folder",
    "verify none": "not a folder",
    "calibrate MODEL --data no.jsonl --out c.json": "does not exist",
    "frontier no.json": "cannot read the calibration",
    "calibrate MODEL --data digits --out full/x": "full/x exists",
    "ask none Q --image p.png": "not a model folder",
    "ask MODEL Q --image p.png": "does not exist",
    "ask MODEL --data no.jsonl": "does not exist",
    "trace none --data digits --out o": "not a model folder",
    "trace MODEL --data no.jsonl --out o": "does not exist",
    "diagnose none --data digits --out o": "not a model folder",
    "diagnose MODEL --data no.csv --out o": "does not exist",
    "conform none": "not a model folder",
    "eval MODEL --task popee --out o": "did you mean pope?",
    "eval ./none --task digits --out o": "does not exist",
    "eval MODEL --task digits --data no.jsonl --out o": "does not exist",
    "eval MODEL --task digits --backend vlm --out o": "did you mean vllm?",
    "sweep MODEL --task digits --spec tabel2 --out o": "did you mean table2?",
    "compare none none --data digits --out o": "not a model folder",
    "compare MODEL MODEL --data no.jsonl --out o": "does not exist",
    "serve none": "not a model folder",
    "score --task popee --responses r": "did you mean pope?",
    "score --task pope --responses r": "cannot read r",
    "bench serve none none --out o": "not a model folder",
    "bench attention --visual-tokens 5-2": "runs backwards",
    "demo --out full": "not empty",
    "demo --seed 1000": "take another --seed",
    "push none me/x": "not a folder",
    "pull me/x full": "full exists",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refusals(here: Path, line: str) -> None:
    found = run(here, *(word.replace("MODEL", str(MODEL)) for word in line.split()))
    (told,) = [row for row in found.stderr.splitlines() if row.startswith("Error: ")]
    assert found.returncode == 2 and found.stdout == "" and REFUSED[line] in told and light(found), found.stderr
    assert sorted(p.name for p in here.iterdir() if p.name != "__pycache__") == ["full", "lostattn"]


def test_what_needs_torch_finds_everything_registered(here: Path) -> None:
    found = run(here, "plan", str(MODEL), "--heads", "all", "--json")
    assert found.returncode == 0 and '"layers"' not in found.stderr and "'torch'" in found.stderr
    code = """
import sys
from lostattn.surgery.commands.stand_in import stand_in
stand_in()
from lostattn.patches.errors import LostattnError
assert "torch" not in sys.modules
{first}
from lostattn.patches.family import FAMILIES
from lostattn.patches.mode import MODES
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
import lostattn.patches as whole
assert len(FAMILIES) > 5 and len(MODES) > 3 and all(f"sap_{{name}}" in CONFIG_MAPPING for name in FAMILIES)
assert whole.LostattnError is LostattnError and type(whole).__name__ == "module"
"""
    for first in ("import torch", "from transformers import AutoConfig", "from lostattn.patches import load_patched"):
        again = run(here, code=code.format(first=first))
        assert again.returncode == 0, (first, again.stderr)
