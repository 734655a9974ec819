"""Runs vLLM in a process of its own on the demo's questions: reads a job (JSON), writes what came out (JSON).

A job is a list of cases {folder, options, prompts, seed}; prompt i belongs to picture i of the held-out questions of that
seed. Out come the greedy answers of each case, or the last line of the error that kept it from starting.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import drive


def run_case(case: dict[str, Any]) -> Any:
    """One engine, all questions at once."""
    from lostattn.surgery.demo.digits import held_out
    from vllm import LLM, SamplingParams

    asked = held_out(len(case["prompts"]), seed=case["seed"])
    try:
        engine = LLM(case["folder"], **{**drive.OPTIONS, "max_model_len": 1024, **case.get("options", {})})
    except Exception as error:  # what vLLM refuses
        return str(error)
    requests = [
        {"prompt": p, "multi_modal_data": {"image": q.image}} for p, q in zip(case["prompts"], asked, strict=True)
    ]
    settings = SamplingParams(temperature=0, max_tokens=2)
    found = [o.outputs[0].text.strip() for o in engine.generate(requests, settings, use_tqdm=False)]
    del engine
    gc.collect()
    return found


def main() -> None:
    job, out = Path(sys.argv[1]), Path(sys.argv[2])
    cases = json.loads(job.read_text(encoding="utf-8"))
    out.write_text(json.dumps([run_case(case) for case in cases]), encoding="utf-8")


if __name__ == "__main__":
    main()
