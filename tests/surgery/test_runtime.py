"""The Python files that travel, and the three doors to a patched checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lostattn.patches.family import FAMILIES
from lostattn.patches.mode import MODES
from lostattn.patches.plan import Pixels, Plan
from lostattn.surgery.checkpoint import runtime
from lostattn.surgery.checkpoint.runtime import (
    ENTRY,
    class_names,
    siblings,
    travelling_files,
    travelling_names,
)
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.checkpoint.write import write_patched

# What the child is told beside its task: no lostattn, and no torchvision (see patches/torchvision_ops.py).
CHILD = """
import importlib.abc, importlib.util, json, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in {hidden} else found(name, *rest)
import torch
torch.set_num_threads(1)
{before}
from transformers import AutoModelForImageTextToText
model, info = AutoModelForImageTextToText.from_pretrained({folder!r}, output_loading_info=True, {arguments})
assert not info["missing_keys"] and not info["unexpected_keys"], info
ids = torch.tensor([[1, 60, 60, 60, 60, 2, 3]])
pixels = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
with torch.no_grad():
    logits = model(input_ids=ids, pixel_values=pixels).logits
print(json.dumps([type(model).__name__, type(model).__module__, logits.flatten().tolist()]))
"""
WITH_LOSTATTN = """
root = {root!r}
spec = importlib.util.spec_from_file_location("lostattn", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["lostattn"] = importlib.util.module_from_spec(spec)
import lostattn.patches
"""


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_transformers_finds_every_file_that_is_needed(family: str, tmp_path: Path) -> None:
    from transformers.dynamic_module_utils import get_imports, get_relative_import_files

    files = travelling_files(family)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = {Path(path).name for path in get_relative_import_files(tmp_path / ENTRY)} | {ENTRY}
    assert found == set(files)
    outside = {package for name in files for package in get_imports(tmp_path / name)} - set(sys.stdlib_module_names)
    assert outside <= {"torch", "transformers"}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_the_family_itself_but_every_mode_travels(family: str) -> None:
    files = set(travelling_files(family))
    assert {name for name in files if name.startswith("family_")} == {f"family_{family}.py"}
    assert {f"mode_{mode}.py" for mode in MODES} <= files
    assert files <= travelling_names() | {ENTRY}
    entry = travelling_files(family)[ENTRY].decode()
    assert all(name in entry for name in class_names(family))


@pytest.mark.parametrize("line", [b"from . import plan", b"from .a.b import c", b"from ..x import y"])
def test_imports_that_would_not_travel(line: bytes) -> None:
    with pytest.raises(RuntimeError, match="line 1"):
        siblings(line)


def test_travelling_files_are_those_of_patches() -> None:
    for name, data in travelling_files("llava").items():
        if name != ENTRY:
            assert data == (runtime._PATCHES / name).read_bytes()


@pytest.fixture(scope="module")
def patched(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = Plan(
        "llava", "noise", "paper", "log", "all", 3, 4, 2, heads={1: (0, 1), 2: (3,)},
        options=MODES["noise"].settle("paper"), pixels=Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )  # fmt: skip
    out = tmp_path_factory.mktemp("runtime") / "tiny-sap.v1"
    return write_patched(resolve_source(tiny_llava), plan, out, card="# card\n").path


def run(folder: Path, cache: Path, *, lostattn: bool, arguments: str = "") -> subprocess.CompletedProcess[str]:
    """A fresh process that loads the folder and prints class, module and logits."""
    # torchaudio: an installed one that does not load ends transformers itself
    hidden = ("torchvision", "torchaudio") if lostattn else ("torchvision", "torchaudio", "lostattn")
    before = WITH_LOSTATTN.format(root=str(Path(runtime.__file__).resolve().parent.parent)) if lostattn else ""
    code = CHILD.format(hidden=hidden, before=before, folder=str(folder), arguments=arguments)
    environment = {"HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(cache)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, cwd=cache, check=False
    )


def answer(process: subprocess.CompletedProcess[str]) -> tuple[str, str, list[float]]:
    assert process.returncode == 0, process.stderr[-2000:]
    return tuple(json.loads(process.stdout.splitlines()[-1]))  # type: ignore[return-value]


def test_two_doors_one_answer(patched: Path, tmp_path: Path) -> None:
    name, module, remote = answer(run(patched, tmp_path, lostattn=False, arguments="trust_remote_code=True"))
    assert name == "SapLlavaForConditionalGeneration" and module.startswith("transformers_modules.")
    name, module, local = answer(run(patched, tmp_path, lostattn=True))
    assert name == "SapLlavaForConditionalGeneration" and module == "lostattn.patches.family_llava"
    assert remote == local  # bit for bit


def test_the_closed_door_is_loud(patched: Path, tmp_path: Path) -> None:
    process = run(patched, tmp_path, lostattn=False)
    assert process.returncode != 0 and "trust_remote_code=True" in process.stderr
