"""Runs vLLM in a process of its own for the tests: reads a job (JSON), writes what came out (JSON).

A job is a list of cases: {folder, options, waves}; a wave is a list of requests that are sent together, a request
{prompt, pictures: [count, seed], tokens} and, if wanted, `lora`, the folder of its adapter, and `videos`, a list of
[frames, [width, height], seed]; `long` is the number of rows from
which a prefill counts as long. Out come for each request its prompt ids, token ids, logprobs and cached tokens, and of each
case what the scheduler saw. A case that is `refused` gives the sentence with which the engine does not start.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
sys.path.insert(0, str(Path(__file__).parent))

OPTIONS = {
    "max_model_len": 2048,
    "enforce_eager": True,
    "dtype": "float32",
    "max_num_seqs": 8,
    "block_size": 32,
    "limit_mm_per_prompt": {"image": 4, "video": 0},
    "gpu_memory_utilization": 0.3,
}


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """One engine, all waves of a case."""
    from lostattn.serving.engine.attention import metadata
    from made_videos import video
    from served import pictures
    from vllm import LLM, SamplingParams

    metadata.LONG = case.get("long", 512)
    if case.get("refused"):
        return {"refused": refusal(case)}
    engine = LLM(case["folder"], **{**OPTIONS, **case.get("options", {})})
    core = getattr(engine.llm_engine.engine_core, "engine_core", None)
    seen = Watch(core.scheduler) if core is not None else None
    waves = []
    for wave in case["waves"]:
        if wave == "reset":
            engine.reset_prefix_cache()
            waves.append([])
            continue
        requests, settings = [], []
        for request in wave:
            media: dict[str, Any] = {"image": pictures(*request["pictures"])} if request["pictures"][0] else {}
            if request.get("videos"):
                media["video"] = [video(*v) for v in request["videos"]]
            asked = {"prompt": request["prompt"], **({"multi_modal_data": media} if media else {})}
            requests.append(asked)
            settings.append(SamplingParams(temperature=0, max_tokens=request["tokens"], ignore_eos=True, logprobs=0))
        found = engine.generate(requests, settings, use_tqdm=False, lora_request=adapters(wave))
        waves.append([_row(o) for o in found])
    result = {"waves": waves, "seen": seen.report() if seen else None}
    del engine, core, seen
    gc.collect()
    return result


def refusal(case: dict[str, Any]) -> str:
    """What the engine says to a case that it does not take."""
    from vllm import LLM

    try:
        LLM(case["folder"], **{**OPTIONS, **case["options"]})
    except Exception as error:
        return str(error)
    raise AssertionError(f"{case['options']} was accepted")


def adapters(wave: list[dict[str, Any]]) -> list[Any] | None:
    """The adapter of each request; None if no request has one."""
    from vllm.lora.request import LoRARequest

    names = sorted({r["lora"] for r in wave if r.get("lora")})
    known = {name: LoRARequest(name, number, name) for number, name in enumerate(names, 1)}
    return [known.get(r.get("lora", "")) for r in wave] if names else None


def _row(output: Any) -> dict[str, Any]:
    best = output.outputs[0]
    tokens = list(best.token_ids)
    return {
        "prompt": list(output.prompt_token_ids),
        "tokens": tokens,
        "cached": output.num_cached_tokens,
        "logprobs": [step[t].logprob for step, t in zip(best.logprobs, tokens, strict=True)],
    }


class Watch:
    """Counts preemptions and the most blocks in use."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.preempted, self.most = scheduler, 0, 0
        schedule, preempt = scheduler.schedule, scheduler._preempt_request
        self.drafted = self.accepted = 0
        drafts = scheduler.make_spec_decoding_stats

        def counting_drafts(
            stats: Any, num_draft_tokens: int, num_accepted_tokens: int, *args: Any, **kwargs: Any
        ) -> Any:
            self.drafted, self.accepted = self.drafted + num_draft_tokens, self.accepted + num_accepted_tokens
            return drafts(stats, num_draft_tokens, num_accepted_tokens, *args, **kwargs)

        scheduler.make_spec_decoding_stats = counting_drafts

        def counting(*args: Any, **kwargs: Any) -> Any:
            out = schedule(*args, **kwargs)
            pool = scheduler.kv_cache_manager.block_pool
            self.most = max(self.most, pool.num_gpu_blocks - 1 - pool.get_num_free_blocks())
            return out

        def noting(*args: Any, **kwargs: Any) -> Any:
            self.preempted += 1
            return preempt(*args, **kwargs)

        scheduler.schedule, scheduler._preempt_request = counting, noting

    def report(self) -> dict[str, Any]:
        manager = self.scheduler.kv_cache_manager
        groups = manager.kv_cache_config.kv_cache_groups
        return {
            "preempted": self.preempted,
            "most_blocks": self.most,
            "blocks": manager.block_pool.num_gpu_blocks,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "groups": [
                [
                    type(g.kv_cache_spec).__name__,
                    g.kv_cache_spec.block_size,
                    g.kv_cache_spec.page_size_bytes,
                    g.layer_names,
                ]
                for g in groups
            ],
            "concurrency": self.scheduler.vllm_config.cache_config.kv_cache_max_concurrency,
        }


def main() -> None:
    job, out = Path(sys.argv[1]), Path(sys.argv[2])
    results = []
    for case in json.loads(job.read_text(encoding="utf-8")):
        results.append(run_case(case))
        out.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
