"""vLLM as a user's own program starts it: no server of ours, no sitecustomize, and no memory of any model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from lostattn.surgery import patch_checkpoint  # noqa: E402
from lostattn.surgery.demo.demo import MODEL  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
OWN = """
import sys
if __name__ == "__main__":
    from vllm import LLM, SamplingParams
    llm = LLM(sys.argv[1], enforce_eager=True, dtype="float32", max_model_len=512, block_size=32)
    found = llm.generate("one two three", SamplingParams(max_tokens=4, ignore_eos=True), use_tqdm=False)
    print("TOKENS", len(found[0].outputs[0].token_ids))
"""


@pytest.fixture
def cold(tmp_path: Path) -> dict[str, str]:
    """An environment with an empty home."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VLLM_CACHE_ROOT", "XDG_CACHE_HOME")}
    settings = {
        "HOME": str(tmp_path),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    return env | settings


def test_a_folder_in_a_program_of_ones_own(tmp_path: Path, cold: dict[str, str]) -> None:
    patch_checkpoint(MODEL, tmp_path / "whole", mode="uniform", layers="1-5", heads="all")
    (tmp_path / "own.py").write_text(OWN)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "own.py"), str(tmp_path / "whole")], env=cold, capture_output=True, text=True
    )
    assert "TOKENS 4" in done.stdout, done.stderr[-3000:]
    assert list((tmp_path / ".cache" / "vllm" / "modelinfos").glob("*.json")), (
        "the model's class was looked at in a subprocess"
    )
