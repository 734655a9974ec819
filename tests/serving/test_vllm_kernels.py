"""The Triton kernels in vLLM's engine, in Triton's interpreter: equal tokens, and how many launches and calls a layer makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytest.importorskip("triton")

from engines import check, drive, oracle  # noqa: E402
from lostattn.surgery.patch import patch_from_spec  # noqa: E402
from lostattn.surgery.spec import PatchSpec  # noqa: E402
from served import placeholder, write_checkpoint  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

# whole groups in every layer; layers of whole groups, of one whole group and of scattered heads; scattered heads alone
PLANS: dict[str, dict[str, Any]] = {
    "whole": {"layers": "all", "heads": "all", "scores": "log"},
    "kitchen": {"heads": {0: [0, 1, 2, 3], 1: [0, 1, 3], 2: [1, 2]}},
    "scattered": {"heads": {0: [0, 3], 2: [1]}, "mode": "noise", "seed": 3},
}
KERNELS = {"LOSTATTN_KERNELS": "triton", "TRITON_INTERPRET": "1"}


def ask(images: int, seed: int, question: str, tokens: int = 6) -> dict[str, Any]:
    text = f"<|im_start|>user\n{placeholder('qwen2_5_vl') * images}{question}<|im_end|>\n<|im_start|>assistant\n"
    return {"prompt": text, "pictures": [images, seed], "tokens": tokens}


ASKED = [ask(2, 0, "What?"), ask(0, 0, "Hello."), ask(1, 1, "And what colours are these?", 12)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kernels")
    write_checkpoint("qwen2_5_vl", root / "base")
    for name, options in PLANS.items():
        patch_from_spec(root / "base", root / name, PatchSpec(**{"mode": "patch_complexity", **options}))
    return root


def test_equal_tokens(folders: Path, tmp_path: Path) -> None:
    """In batches that requests join and leave, in chunks, one token a step inside an image too, and after prefix hits."""
    cases = [
        {
            "folder": str(folders / name),
            "waves": [ASKED, ASKED[:1]],
            "options": {"max_num_batched_tokens": tokens, "max_model_len": 512, "max_num_seqs": seqs},
        }
        for name in PLANS
        for tokens, seqs in ((512, 8), (33, 3))
    ]
    for case, found in zip(cases, drive(cases, tmp_path, KERNELS), strict=True):
        for wave, rows in zip(case["waves"], found["waves"], strict=True):
            for request, row in zip(wave, rows, strict=True):
                check(
                    row,
                    oracle(case["folder"], request),
                    f"{case['folder']} {case['options']} {request['prompt'][-40:]!r}",
                )
