"""What the vLLM tests share: running `drive.py`, and the oracle's answers from transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lostattn.patches import load_patched
from made_videos import video
from served import pictures
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessor


def environment() -> dict[str, str]:
    """Of vLLM's processes, as a user's own program starts them."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def drive(
    cases: list[dict[str, Any]], folder: Path, env: dict[str, str] | None = None, driver: str = "drive.py"
) -> list[Any]:
    """Run cases in one vLLM process. Raises AssertionError with the end of its log if it dies.

    Eager engines run without torch's compiler, which would spend minutes of C++ on vLLM's small functions.
    """
    eager = all(case.get("options", {}).get("enforce_eager", True) for case in cases)
    return run_driver(driver, cases, folder, {**({"TORCHDYNAMO_DISABLE": "1"} if eager else {}), **(env or {})})


def run_driver(driver: str, given: Any, folder: Path, env: dict[str, str] | None = None) -> Any:
    """What a script of this folder writes about a job; without torch's compiler unless `env` is given."""
    env = {"TORCHDYNAMO_DISABLE": "1"} if env is None else env
    job, out = folder / "job.json", folder / "out.json"
    job.write_text(json.dumps(given), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).parent / driver), str(job), str(out)]
    with (folder / "vllm.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, env={**environment(), **env}, stdout=log, stderr=log, timeout=1200)
    assert done.returncode == 0, (folder / "vllm.log").read_text(encoding="utf-8")[-4000:]
    return json.loads(out.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Answer:
    """What transformers says: prompt ids, greedy tokens, their logprobs."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


@lru_cache(maxsize=4)
def _model(folder: str, adapter: str | None = None) -> tuple[Any, Any]:
    patched = "sap" in json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    load = load_patched if patched else AutoModelForImageTextToText.from_pretrained
    model = load(folder).float().eval()
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    model.generation_config.eos_token_id = None
    if patched:
        model.sap_settings.force("eager")
    return model, AutoProcessor.from_pretrained(folder)


def oracle(folder: Path | str, request: dict[str, Any]) -> Answer:
    """Greedy answer of transformers' eager form, the request's adapter merged in; each question is asked once."""
    return _answer(str(folder), json.dumps(request, sort_keys=True))


def _media(request: dict[str, Any]) -> dict[str, Any]:
    """What a processor is given beside the prompt."""
    count, seed = request["pictures"]
    found: dict[str, Any] = {"images": pictures(count, seed)} if count else {}
    if request.get("videos"):
        frames, told = zip(*(video(*v) for v in request["videos"]), strict=True)
        known = [{k: v for k, v in t.items() if k != "do_sample_frames"} for t in told]
        found |= {"videos": list(frames), "video_metadata": known, "do_sample_frames": False}
    return found


@lru_cache(maxsize=256)
def _answer(folder: str, asked: str) -> Answer:
    request = json.loads(asked)
    model, processor = _model(folder, request.get("lora"))
    media = _media(request)
    inputs = processor(text=[request["prompt"]], return_tensors="pt", **media)
    with torch.no_grad():
        out = model.generate(
            **inputs,
            max_new_tokens=request["tokens"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    logprobs = [step[0].log_softmax(-1)[t].item() for step, t in zip(out.logits, tokens, strict=True)]
    return Answer(inputs["input_ids"][0].tolist(), tokens, logprobs)


class _Prescribed(LogitsProcessor):
    """Lets generation give these tokens and no others."""

    def __init__(self, tokens: list[int], start: int) -> None:
        self.tokens, self.start = tokens, start

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf).index_fill_(
            1, torch.tensor([self.tokens[ids.shape[1] - self.start]]), 0.0
        )


def rounding_error(found: dict[str, Any], folder: Path | str, request: dict[str, Any], where: str) -> float:
    """For engines that run in bfloat16 alone: transformers' float32 eager form, given the engine's own tokens, finds none of them
    much less likely than its own choice.

    Returns:
        how far its logprobs of these tokens are from the engine's, on the average.
    """
    model, processor = _model(str(folder))
    inputs = processor(text=[request["prompt"]], return_tensors="pt", **_media(request))
    assert found["prompt"] == inputs["input_ids"][0].tolist(), f"{where}: another prompt"
    with torch.no_grad():
        out = model.generate(
            **inputs,
            max_new_tokens=len(found["tokens"]),
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            logits_processor=[_Prescribed(found["tokens"], len(found["prompt"]))],
        )
    steps = [step[0].float().log_softmax(-1) for step in out.logits]
    told = [step[t].item() for step, t in zip(steps, found["tokens"], strict=True)]
    lost = max(step.max().item() - own for step, own in zip(steps, told, strict=True))
    assert lost < 0.25, f"{where}: a token is less likely by {lost:.2g}"
    return sum(abs(a - b) for a, b in zip(told, found["logprobs"], strict=True)) / len(told)


def check(found: dict[str, Any], wanted: Answer, where: str) -> None:
    """Same prompt, same tokens, logprobs within 1e-3."""
    assert found["prompt"] == wanted.prompt, f"{where}: another prompt"
    assert found["tokens"] == wanted.tokens, f"{where}: {found['tokens']} instead of {wanted.tokens}"
    worst = max(abs(a - b) for a, b in zip(found["logprobs"], wanted.logprobs, strict=True))
    assert worst < 1e-3, f"{where}: a logprob is off by {worst:.1e}"
