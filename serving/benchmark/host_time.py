"""Host time of decode steps in vLLM: what scheduling and attention metadata cost, and how many KV-cache groups there are.

Run as a module, once for each model: `python -m lostattn.serving.benchmark.host_time MODEL [--requests 64]`. The engine runs
in this process with dummy weights, eagerly and without prefix cache; every request has one random picture and decodes at the
same time as all others. Printed is one line of JSON: medians over the last steps in ms, and the KV cache in use at the most.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

LAST = 30  # steps that count
PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"  # Qwen's


def timed(owner: Any, name: str, seconds: list[float]) -> None:
    """Note how long every call of a method takes."""
    plain: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = plain(*args, **kwargs)
        seconds.append(time.perf_counter() - start)
        return result

    setattr(owner, name, call)


def _noting(update: Callable[..., Any], pool: Any, used: list[int]) -> Callable[..., Any]:
    """`update`, noting how many of the pool's blocks are in use."""

    def call(*args: Any, **kwargs: Any) -> Any:
        used.append(pool.num_gpu_blocks - pool.get_num_free_blocks())
        return update(*args, **kwargs)

    return call


def host_time(
    model: str, requests: int, size: tuple[int, int], block_size: int, steps: int, few_groups: bool = True
) -> dict[str, Any]:
    """Serve the requests and measure.

    Args:
        size: width and height of each picture in pixels.
        few_groups: False leaves the KV-cache groups to vLLM, for comparison.

    Returns:
        `groups` (tokens of a block of each KV-cache group), `prompt` (tokens), `schedule_ms`, `metadata_ms`, `step_ms`,
        `kv_mib`.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM, SamplingParams

    from ..engine.cache import grouping

    if not few_groups:
        grouping.kinds = lambda specs: None
    engine = LLM(
        model,
        dtype="float32",
        load_format="dummy",
        enforce_eager=True,
        block_size=block_size,
        max_model_len=2048,
        max_num_seqs=requests,
        enable_prefix_caching=False,
        limit_mm_per_prompt={"image": 1, "video": 0},
        seed=0,
    )
    core: Any = engine.llm_engine.engine_core.engine_core
    scheduler, pool = core.scheduler, core.scheduler.kv_cache_manager.block_pool
    times: dict[str, list[float]] = {"schedule": [], "metadata": [], "step": []}
    used: list[int] = []
    runner = core.model_executor.driver_worker.worker.model_runner
    timed(scheduler, "schedule", times["schedule"])
    timed(runner, "_build_attention_metadata", times["metadata"])
    timed(core.model_executor, "execute_model", times["step"])
    scheduler.update_from_output = _noting(scheduler.update_from_output, pool, used)
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(requests)]
    asked = [{"prompt": PROMPT.format("what is it " * 40), "multi_modal_data": {"image": p}} for p in pictures]
    out = engine.generate(asked, SamplingParams(temperature=0, max_tokens=steps, ignore_eos=True), use_tqdm=False)
    config = scheduler.kv_cache_config
    block = sum(t.size for t in config.kv_cache_tensors[:1]) / config.num_blocks
    return {
        "model": model,
        "groups": [g.kv_cache_spec.block_size for g in config.kv_cache_groups],
        "prompt": len(out[0].prompt_token_ids or ()),
        "kv_mib": round(max(used) * block / 2**20, 1),
        **{f"{name}_ms": round(1000 * median(values[-LAST:]), 2) for name, values in times.items()},
    }


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--picture", default="560x280", help="width x height in pixels")
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--groups", choices=("few", "vllm"), default="few", help="vllm: as vLLM alone would make them")
    given = parser.parse_args()
    width, height = map(int, given.picture.split("x"))
    few = given.groups == "few"
    print(json.dumps(host_time(given.model, given.requests, (width, height), given.block_size, given.steps, few)))


if __name__ == "__main__":
    _main()
