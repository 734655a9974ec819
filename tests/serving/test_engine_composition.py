"""What goes together with a plan in the vLLM engine: LoRA adapters, drafts from a request's own text; and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")
pytest.importorskip("peft")

from engines import check, drive, oracle  # noqa: E402
from lostattn.surgery.patch import patch_from_spec  # noqa: E402
from lostattn.surgery.spec import PatchSpec  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from served import placeholder, write_checkpoint  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PLANS: dict[str, dict[str, Any]] = {
    "whole": {"layers": "all", "heads": "all"},
    "kitchen": {"heads": {0: [0, 1, 2, 3], 1: [0, 1, 3], 2: [1, 2]}},
    "last": {"heads": {0: [0, 1, 2, 3], 1: [0, 3]}, "queries": "last"},
    "after": {"heads": {0: [0, 1, 2, 3], 1: [0, 3]}, "queries": "after_image"},
    "blend": {"heads": {0: [0, 1, 2, 3], 1: [0, 3]}, "blend": 0.5},
    "band": {"layers": "0-1", "heads": "0.2-0.7", "dynamic": True, "queries": "last"},
}
NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
TARGETS = r".*language_model.*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def ask(images: int, seed: int, question: str, tokens: int, **more: Any) -> dict[str, Any]:
    text = f"<|im_start|>user\n{placeholder('qwen2_5_vl') * images}{question}<|im_end|>\n<|im_start|>assistant\n"
    return {"prompt": text, "pictures": [images, seed], "tokens": tokens, **more}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen2.5-VL under every plan, and two adapters of its decoder."""
    folder = tmp_path_factory.mktemp("composition")
    base = write_checkpoint("qwen2_5_vl", folder / "base")
    weights = load_file(base / "model.safetensors")
    repeat_itself(weights)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    for name, options in PLANS.items():
        patch_from_spec(base, folder / name, PatchSpec(**{"mode": "patch_complexity", **options}))
    for seed in (1, 2):
        write_adapter(base, folder / f"adapter-{seed}", seed)
    return folder


def repeat_itself(weights: dict[str, torch.Tensor]) -> None:
    """Let token n pull towards the next one of its eight, so that greedy answers repeat themselves for a while."""
    (entry,) = (value for name, value in weights.items() if name.endswith("embed_tokens.weight"))
    head = weights["lm_head.weight"]
    count = torch.arange(len(entry))
    head[count // 8 * 8 + (count + 1) % 8] += 1.5 * entry * (head.norm() / entry.norm())
    entry.mul_(60)


def write_adapter(base: Path, folder: Path, seed: int) -> None:
    """Random LoRA matrices for all linear layers of the decoder."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    plain = AutoModelForImageTextToText.from_pretrained(base)
    model = get_peft_model(plain, LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS))
    for name, value in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.3 if "lora_B" in name else 0.1)
    model.save_pretrained(folder)


def judge(folder: Path, waves: list[list[dict[str, Any]]], found: dict[str, Any]) -> None:
    """Every answer against transformers."""
    for wave, rows in zip(waves, found["waves"], strict=True):
        for request, row in zip(wave, rows, strict=True):
            check(row, oracle(folder, request), f"{folder.name} {request}")


def test_adapters_are_as_if_merged(root: Path, tmp_path: Path) -> None:
    """One question with two adapters and without, in one batch, prefilled in chunks, and again from the prefix cache."""
    questions = [(2, 0, "What is this?"), (0, 0, "Hello.")]
    loras = [{"lora": str(root / f"adapter-{n}")} for n in (1, 2)]
    wave = [ask(*question, 10, **more) for question in questions for more in (*loras, {})]
    # vLLM's LoRA kernels for CPUs take the last place for requests without an adapter, in plain models too: leave it empty
    options = {"enable_lora": True, "max_loras": 3, "max_lora_rank": 8, "max_num_batched_tokens": 128}
    names = ["base", "whole", "kitchen", "last", "blend"]
    cases = [{"folder": str(root / name), "waves": [wave, wave], "options": options} for name in names]
    for name, found in zip(names, drive(cases, tmp_path), strict=True):
        judge(root / name, [wave, wave], found)
        assert len({str(row["tokens"]) for row in found["waves"][0][:3]}) == 3, f"{name}: adapters change the answer"
        assert sum(row["cached"] for row in found["waves"][1]) > 0, f"{name}: no prefix was found again"


def test_drafts_from_the_text_change_no_answer(root: Path, tmp_path: Path) -> None:
    """Several text rows of a request in one step, some of which are rejected."""
    wave = [
        ask(2, 0, "What is this? What is this? What is this?", 40),
        ask(1, 1, "abcabcabcabcabc", 40),
        ask(0, 0, "Hello. Hello. Hello.", 40),
        ask(1, 2, "one two one two one two", 40),
    ]
    options = {"speculative_config": NGRAM, "max_num_batched_tokens": 128}
    cases = [{"folder": str(root / name), "waves": [wave, wave], "options": options} for name in PLANS]
    for name, found in zip(PLANS, drive(cases, tmp_path), strict=True):
        judge(root / name, [wave, wave], found)
        seen = found["seen"]
        assert 0 < seen["accepted"] < seen["drafted"], f"{name}: {seen['accepted']} of {seen['drafted']} drafts"


def test_drafts_beside_triton_kernels(root: Path, tmp_path: Path) -> None:
    """The same where decode steps and prefills run in Triton's kernels, interpreted."""
    pytest.importorskip("triton")
    wave = [ask(1, 1, "abcabcabc", 16), ask(0, 0, "Hello. Hello.", 16)]
    names = ("whole", "kitchen")
    options = {"speculative_config": NGRAM, "max_num_batched_tokens": 512, "max_model_len": 512}
    cases = [{"folder": str(root / name), "waves": [wave], "options": options} for name in names]
    env = {"LOSTATTN_KERNELS": "triton", "TRITON_INTERPRET": "1"}
    for name, found in zip(names, drive(cases, tmp_path, env), strict=True):
        judge(root / name, [wave], found)
        assert found["seen"]["drafted"] > 0, f"{name}: no step had several rows of a request"


def test_refused_when_the_engine_starts(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "base", tmp_path / "draft")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"kv_cache_dtype": "fp8"}, "give --kv-cache-dtype bfloat16"),
        (
            {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
            "leave out --kv-transfer-config",
        ),
        ({"enable_lora": True, "enable_tower_connector_lora": True}, "leave out --enable-tower-connector-lora"),
        (
            {
                "speculative_config": {
                    "method": "draft_model",
                    "model": str(tmp_path / "draft"),
                    "num_speculative_tokens": 2,
                }
            },
            "use method ngram",
        ),
    ]
    cases = [{"folder": str(root / "whole"), "options": options, "refused": True} for options, _ in refused]
    for (options, word), found in zip(refused, drive(cases, tmp_path), strict=True):
        assert word in found["refused"], f"{options}: {found['refused']}"
