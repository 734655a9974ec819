"""Quantised checkpoints in vLLM, patched, against transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from answered import digit_answers

pytest.importorskip("vllm")

from engines import drive, environment  # noqa: E402
from lostattn.surgery.chat import Chat  # noqa: E402
from lostattn.surgery.demo.demo import MODEL  # noqa: E402
from lostattn.surgery.demo.digits import held_out  # noqa: E402
from lostattn.surgery.patch import patch_checkpoint  # noqa: E402
from quantised import SCHEMES, quantise  # noqa: E402
from served import pictures, placeholder, write_checkpoint  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

HEADS = {0: [0, 1], 2: [0, 1, 2, 3], 4: [1, 2]}
LOADED = ("int8", "fp8", "int4")  # the others need packages that are not there: their plain twins answer for them
EXACT = ("int8", "fp8")  # four-bit kernels for CPUs compute in 16 bits
QUESTIONS, SEED = 48, 77
ENDS = ("", "-sap")


def computed() -> tuple[str, ...]:
    """Schemes that vLLM's build for this CPU has kernels for: four bits need more than AVX2."""
    ask = "import vllm._custom_ops, torch; print(hasattr(torch.ops._C, 'cpu_gemm_wna16'))"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment()).stdout
    return tuple(s for s in SCHEMES if s in EXACT or told.split()[-1:] == ["True"])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], list[str]]]:
    """Scheme and end of the folder's name -> what vLLM says and what transformers says; all engines in one process."""
    root, asked = tmp_path_factory.mktemp("quantised"), held_out(QUESTIONS, seed=SEED)
    said, cases = {}, []
    for scheme in computed():
        folder = root / scheme
        folder.mkdir()
        source, twin = quantise(MODEL, folder / "source", scheme)
        for plain in (source, twin):
            patch_checkpoint(plain, folder / f"{plain.name}-sap", heads=HEADS)
        for end in ENDS:
            speaks = f"{(source if scheme in LOADED else twin).name}{end}"
            chat = Chat.load(folder / speaks, attention="eager" if end else "auto")
            said[scheme + end] = digit_answers(chat, QUESTIONS, SEED)
            options = {"dtype": "float32" if scheme in EXACT else "bfloat16"}
            prompts = [chat.prompt(q.question) for q in asked]
            cases.append({"folder": str(folder / f"source{end}"), "options": options, "prompts": prompts, "seed": SEED})
    found = drive(cases, root, driver="drive_demo.py")
    return {name: (vllm, said[name]) for name, vllm in zip(said, found, strict=True)}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_demo_answers_as_in_transformers(scheme: str, answers: dict[str, tuple[list[str], list[str]]]) -> None:
    """Answers of a trained model are decided: what kernels round differently shows in none in float32, and in 16 bits, which
    depend on the CPU, in one near tie at most. The patch changes more."""
    if scheme not in answers:
        pytest.skip("vLLM's build for this CPU has no kernel for four bits")
    for end in ENDS:
        assert _changed(*answers[scheme + end]) <= (0 if scheme in EXACT else 1)
    assert _changed(answers[scheme][0], answers[scheme + "-sap"][0]) >= 3


def _changed(found: list[str], wanted: list[str]) -> int:
    return sum(a != b for a, b in zip(found, wanted, strict=True))


def test_greedy_tokens_of_llava(tmp_path: Path) -> None:
    base = write_checkpoint("llava-llama", tmp_path / "base")
    source, _ = quantise(base, tmp_path / "source", "fp8")
    patch_checkpoint(source, tmp_path / "sap", heads={0: [0, 1, 2, 3], 1: [0, 3], 2: [2, 3]})
    prompt = f"<|im_start|>user\n{placeholder('llava')}What is this?<|im_end|>\n<|im_start|>assistant\n"
    request: dict[str, Any] = {"prompt": prompt, "pictures": [1, 1], "tokens": 8}
    found = drive([{"folder": str(tmp_path / "sap"), "waves": [[request]]}], tmp_path)[0]["waves"][0][0]
    chat = Chat.load(tmp_path / "sap", attention="eager")
    chat.model.generation_config.eos_token_id = None
    inputs = chat.processor(text=[prompt], images=pictures(1, 1), return_tensors="pt")
    with torch.no_grad():
        out = chat.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert found["prompt"] == inputs["input_ids"][0].tolist()
    assert found["tokens"] == out[0, inputs["input_ids"].shape[1] :].tolist()
