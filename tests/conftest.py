"""Tests of this checkout, installed or not."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start: several tests share the cores
if "VLLM_CACHE_ROOT" not in os.environ:  # what vLLM remembers of models would hide that it cannot look at them
    os.environ["VLLM_CACHE_ROOT"] = tempfile.mkdtemp(prefix="vllm-cache-")
    atexit.register(shutil.rmtree, os.environ["VLLM_CACHE_ROOT"], ignore_errors=True)


def _import_checkout() -> None:
    """Make `import lostattn` mean this folder, whatever it is called and whatever is installed."""
    spec = importlib.util.spec_from_file_location(
        "lostattn", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lostattn"] = module
    spec.loader.exec_module(module)


_import_checkout()
sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402

torch.set_num_threads(1)

from functools import cache  # noqa: E402

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# the same cases in every run, and no time limits: machines differ
settings.register_profile("lostattn", deadline=None, derandomize=True)
settings.load_profile("lostattn")


@pytest.fixture(scope="session")
def plain():
    """name -> plain tiny model (shared: do not change it)."""
    import tiny

    return cache(tiny.make_plain)
