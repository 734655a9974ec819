"""Runs the engine's fuzz in a process of its own: reads settings by plan (JSON), writes what came out (JSON).

In: a list of {folder, settings}. Out, for each of them: `alone`, by name the greedy answer of each request by itself in an
engine without prefix cache and with room for whole prompts; and for each setting its answers (null where nothing came) and
what the scheduler saw.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import drive  # noqa: E402
import fuzz_engine as fuzz  # noqa: E402


def make(folder: str, **options: Any) -> Any:
    from vllm import LLM

    return LLM(folder, **{**drive.OPTIONS, "max_model_len": fuzz.LONGEST, **options})


def add(engine: Any, name: str, request: dict[str, Any], tokens: int) -> None:
    from served import pictures
    from vllm import SamplingParams

    asked: dict[str, Any] = {"prompt": request["prompt"]}
    if request["pictures"][0]:
        asked["multi_modal_data"] = {"image": pictures(*request["pictures"])}
    warm = request["temperature"]
    settings = SamplingParams(
        temperature=warm, seed=7 if warm else None, max_tokens=tokens, ignore_eos=True, logprobs=1
    )
    engine.add_request(name, asked, settings, priority=request["priority"])


def row(output: Any) -> dict[str, Any]:
    best = output.outputs[0]
    tokens = list(best.token_ids)
    found = [step[t].logprob for step, t in zip(best.logprobs, tokens, strict=True)]
    gaps = [
        max((x.logprob for x in step.values()), default=0.0) - min(x.logprob for x in step.values())
        for step in best.logprobs
    ]
    return {
        "prompt": list(output.prompt_token_ids),
        "tokens": tokens,
        "logprobs": found,
        "gaps": gaps,
        "cached": output.num_cached_tokens or 0,
    }


def answers_alone(folder: str, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Each request by itself. With two logprobs asked for, the gap is that of the two best tokens."""
    llm = make(folder, enable_prefix_caching=False, max_num_batched_tokens=2048)
    engine, found = llm.llm_engine, {}
    for request in requests:
        if (name := fuzz.alone(request)) in found or request["temperature"]:
            continue
        add(engine, name, request, fuzz.MOST_TOKENS)
        while engine.has_unfinished_requests():
            for output in engine.step():
                found[name] = output
    return {name: row(output) for name, output in found.items()}


def together(folder: str, setting: dict[str, Any]) -> dict[str, Any]:
    """All requests of a setting, coming, going and being aborted as it says."""
    llm = make(folder, **setting["options"])
    engine = llm.llm_engine
    watch = drive.Watch(engine.engine_core.engine_core.scheduler)
    requests, found, step = setting["requests"], {}, 0
    waiting = dict(enumerate(requests))
    while waiting or engine.has_unfinished_requests():
        for i in [i for i, r in waiting.items() if r["arrives"] <= step]:
            request = waiting.pop(i)
            add(engine, str(i), request, request["tokens"])
        for output in engine.step():
            found[output.request_id] = output
        gone = [str(i) for i, r in enumerate(requests) if r["aborted"] == step and i not in waiting]
        engine.abort_request([name for name in gone if name not in found or not found[name].finished])
        step += 1
    pool = watch.scheduler.kv_cache_manager.block_pool
    rows = [row(found[str(i)]) if str(i) in found else None for i in range(len(requests))]
    ended = [str(i) in found and found[str(i)].finished for i in range(len(requests))]
    seen = watch.report() | {"steps": step, "free": pool.get_num_free_blocks(), "ended": ended}
    return {"rows": rows, "seen": seen}


def main() -> None:
    jobs, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    results: list[dict[str, Any]] = []
    for job in jobs:
        every = [request for setting in job["settings"] for request in setting["requests"]]
        results.append({"alone": answers_alone(job["folder"], every), "settings": []})
        gc.collect()
        for setting in job["settings"]:
            results[-1]["settings"].append(together(job["folder"], setting))
            out.write_text(json.dumps(results), encoding="utf-8")
            gc.collect()


if __name__ == "__main__":
    main()
