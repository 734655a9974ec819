"""vLLM's machinery around a patched model: memory, preemption, parallel ranks, the second model runner, plain models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from engines import check, drive, environment, oracle  # noqa: E402
from lostattn.surgery.patch import patch_from_spec  # noqa: E402
from lostattn.surgery.spec import PatchSpec  # noqa: E402
from served import placeholder, write_checkpoint  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PLANS: dict[str, dict[str, Any]] = {
    "whole": {"layers": "all", "heads": "all", "scores": "log"},
    "kitchen": {"heads": {0: [0, 1, 2, 3], 1: [0, 1, 3], 2: [1, 2]}},
    "last": {"heads": {0: [0, 1, 2, 3], 1: [0, 3]}, "queries": "last"},
    "after": {"heads": {0: [0, 1, 2, 3], 1: [0, 3]}, "queries": "after_image"},
    "blend": {"heads": {0: [0, 1, 2, 3], 1: [0, 3]}, "blend": 0.5},
    "noise": {"mode": "noise", "seed": 3, "layers": "0-1", "heads": "all"},
    "uniform": {"mode": "uniform", "scores": "log", "layers": "0-1", "heads": "all"},
    "drop": {"mode": "drop", "layers": "0-1", "heads": "all"},
    "inert": {"layers": "none", "heads": "all"},
}
BLOCKS = {
    "whole": 18,
    "kitchen": 34,
    "noise": 26,
    "uniform": 26,
    "drop": 26,
}  # little more than one request of 512 tokens needs


def ask(images: int, seed: int, question: str, tokens: int = 10) -> dict[str, Any]:
    text = f"<|im_start|>user\n{placeholder('qwen2_5_vl') * images}{question}<|im_end|>\n<|im_start|>assistant\n"
    return {"prompt": text, "pictures": [images, seed], "tokens": tokens}


ASKED = [
    ask(2, 0, "What is this?"),
    ask(1, 1, "How many?"),
    ask(0, 0, "Hello."),
    ask(1, 1, "And what colours are these?"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen2.5-VL, plain and under every plan."""
    root = tmp_path_factory.mktemp("engines")
    write_checkpoint("qwen2_5_vl", root / "base")
    for name, options in PLANS.items():
        patch_from_spec(root / "base", root / name, PatchSpec(**{"mode": "patch_complexity", **options}))
    return root


def test_plans_under_memory_pressure(folders: Path, tmp_path: Path) -> None:
    """Every plan with small chunks, in batches, and with so few blocks that requests are preempted and computed anew."""
    crowd = [ask(1, i, f"Picture {i}?", 60) for i in range(5)]
    cases = [
        {
            "folder": str(folders / name),
            "waves": [ASKED, ASKED, crowd],
            "options": {
                "max_num_batched_tokens": 128,
                "max_model_len": 512,
                "num_gpu_blocks_override": BLOCKS.get(name, 24),
            },
        }
        for name in PLANS
    ]
    preempted = 0
    for name, found in zip(PLANS, drive(cases, tmp_path), strict=True):
        for wave, rows in zip((ASKED, ASKED, crowd), found["waves"], strict=True):
            for request, row in zip(wave, rows, strict=True):
                check(row, oracle(folders / name, request), f"{name} {request['prompt'][-60:]!r}")
        preempted += found["seen"]["preempted"]
        assert len(found["seen"]["groups"]) <= 2, f"{name}: one KV-cache group for each kind of layer"
    assert preempted > 0


def test_whole_groups_save_memory(folders: Path, tmp_path: Path) -> None:
    """Blocks of one request with large images: text, two blocks an image, and what starts or ends inside a block."""
    request = ask(4, 2, "What is this?", 2)
    options = {"enable_prefix_caching": False, "max_num_batched_tokens": 4096}
    cases = [{"folder": str(folders / n), "waves": [[request]], "options": options} for n in ("base", "whole")]
    plain, whole = drive(cases, tmp_path)
    layers, size = 3, 32
    tokens = len(whole["waves"][0][0]["prompt"]) + 2
    assert plain["seen"]["most_blocks"] >= tokens // size
    visual = _visual(folders, whole["waves"][0][0]["prompt"])
    needed = -(-(tokens - visual) // size) + 4 * 3 + 1
    assert whole["seen"]["most_blocks"] <= needed < plain["seen"]["most_blocks"]
    assert whole["seen"]["groups"][0][0] == "SummarySpec" and len(whole["seen"]["groups"][0][3]) == layers
    assert whole["seen"]["concurrency"] > 1.5 * plain["seen"]["concurrency"]


def _visual(folders: Path, prompt: list[int]) -> int:
    from transformers import AutoConfig

    return prompt.count(AutoConfig.from_pretrained(folders / "base").image_token_id)


def test_a_plain_model_does_not_notice_the_plugin(folders: Path, tmp_path: Path) -> None:
    """Bit-identical logprobs with the plugin and without, and under a plan that patches nothing."""
    (tmp_path / "with").mkdir(), (tmp_path / "without").mkdir()
    case = {"folder": str(folders / "base"), "waves": [ASKED]}
    inert = {"folder": str(folders / "inert"), "waves": [ASKED]}
    with_plugin, patched = drive([case, inert], tmp_path / "with")
    (without,) = drive([case], tmp_path / "without", {"VLLM_PLUGINS": ""})
    assert with_plugin["waves"] == without["waves"]
    assert patched["waves"] == without["waves"]


@pytest.mark.parametrize(
    "options",
    [{"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2, "enforce_eager": False}],
    ids=["tensor", "pipeline"],
)
def test_two_ranks_and_the_multiprocess_engine(folders: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    cases = [{"folder": str(folders / "kitchen"), "waves": [ASKED, ASKED], "options": options}]
    (found,) = drive(cases, tmp_path, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"})
    for rows in found["waves"]:
        for request, row in zip(ASKED, rows, strict=True):
            check(row, oracle(folders / "kitchen", request), str(options))


def test_the_second_model_runner(folders: Path, tmp_path: Path) -> None:
    """The runner that is the default on GPUs, its Triton kernels interpreted."""
    pytest.importorskip("triton")
    names = ("whole", "kitchen", "last")
    options = {"max_num_batched_tokens": 128}
    cases = [{"folder": str(folders / n), "waves": [ASKED, ASKED], "options": options} for n in names]
    env = {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
    for name, found in zip(names, drive(cases, tmp_path, env, "drive_second.py"), strict=True):
        for rows in found["waves"]:
            for request, row in zip(ASKED, rows, strict=True):
                check(row, oracle(folders / name, request), f"{name} {request['prompt'][-60:]!r}")


@pytest.mark.parametrize(("groups", "count"), [("few", 2), ("vllm", 3)])
def test_host_time_of_few_groups_and_of_vllms_own(folders: Path, groups: str, count: int) -> None:
    """Of three layers one is left out: in vLLM's own groups each layer stands alone."""
    command = [sys.executable, "-m", "lostattn.serving.benchmark.host_time", str(folders / "uniform")]
    command += ["--requests", "2", "--steps", "3", "--picture", "56x56", "--groups", groups]
    env = {**environment(), "TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["groups"]) == count and found["kv_mib"] > 0 and found["prompt"] > 100
    assert all(found[f"{name}_ms"] > 0 for name in ("schedule", "metadata", "step"))


def test_without_the_plugin_a_patched_model_is_not_served(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        drive([{"folder": str(folders / "whole"), "waves": [ASKED[:1]]}], tmp_path, {"VLLM_PLUGINS": ""})
    log = (tmp_path / "vllm.log").read_text(encoding="utf-8")
    assert "sap_qwen2_5_vl" in log or "SapQwen2_5_VLForConditionalGeneration" in log
