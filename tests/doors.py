"""Opening a patched folder in a fresh process, with or without lostattn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What the child is told beside its task: no lostattn, and no torchvision (see patches/torchvision_ops.py).
HIDE = """
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in {hidden} else found(name, *rest)
"""
CHILD = """
import importlib.abc, importlib.util, json, sys
{hide}
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


def run(folder: Path, cache: Path, *, lostattn: bool, arguments: str = "") -> subprocess.CompletedProcess[str]:
    """A fresh process that loads the folder and prints class, module and logits."""
    # torchaudio: an installed one that does not load ends transformers itself
    hidden = ("torchvision", "torchaudio") if lostattn else ("torchvision", "torchaudio", "lostattn")
    before = WITH_LOSTATTN.format(root=str(ROOT)) if lostattn else ""
    code = CHILD.format(hide=HIDE.format(hidden=hidden), before=before, folder=str(folder), arguments=arguments)
    environment = {"HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(cache)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, cwd=cache, check=False
    )


def answer(process: subprocess.CompletedProcess[str]) -> tuple[str, str, list[float]]:
    assert process.returncode == 0, process.stderr[-2000:]
    return tuple(json.loads(process.stdout.splitlines()[-1]))  # type: ignore[return-value]
