"""The Triton kernels in Triton's interpreter. It must be chosen before Triton is imported, so each file of cases runs in a
process of its own, and this one stays as it is."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("case_*.py"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_cases(path: Path) -> None:
    env = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, cwd=path.parents[3])
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert re.match(r"\d+ passed(, \d+ warnings?)? in ", run.stdout.splitlines()[-1]), run.stdout[-500:]  # none skipped
