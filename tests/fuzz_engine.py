"""Settings for the fuzz of the vLLM engine: everything of a setting is drawn from its number, so that each can be run again."""

from __future__ import annotations

import random
from typing import Any

from served import placeholder

# plans of every kind that the engine knows, by what their layers keep and how they compute; but for dynamic bands, which rank
# heads of this tiny model by sums so close to each other that the last bit of a float decides
PLANS: dict[str, dict[str, Any]] = {
    "summary": {"layers": "all", "heads": "all"},
    "mixed": {"heads": {0: [0, 2], 1: [1], 2: [1, 3]}},
    "split": {"heads": {0: [0, 1, 2], 1: [2, 3], 2: [0, 1, 2, 3]}},
    "left out": {"layers": "1-2", "heads": "all"},
    "exact": {"heads": {0: [0, 1, 2, 3], 2: [0, 3]}, "blend": 0.5},
    "last": {"heads": {0: [0, 1, 2, 3], 1: [0, 3]}, "queries": "last"},
    "after": {"heads": {0: [0, 1, 2, 3], 1: [0, 3]}, "queries": "after_image"},
    "noise": {"mode": "noise", "layers": "0-1", "heads": "all"},
}
LONGEST, MOST_TOKENS, AT_ONCE = 640, 48, 6
GROUPS = {"split": 3, "left out": 3, "noise": 3}  # KV-cache groups at the most; others have one
PICTURES = [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]  # (count, seed)
QUESTIONS = ["What is this?", "What is that over there?", "Hello. " * 8, "How many?", "abcabcabcabc"]


def folder_name(kind: str) -> str:
    """Of a plan's checkpoint."""
    return kind.replace(" ", "-")


def draw_setting(number: int) -> dict[str, Any]:
    """Setting `number`: its plan, options of the engine, and requests with arrival, priority and abort.

    Returns:
        JSON form. `arrives` and `aborted` count engine steps; `aborted` is None for requests that run to their end; requests
        with a temperature are company for the others, and are not compared.
    """
    draw = random.Random(f"engine fuzz {number}")
    kind = list(PLANS)[number % len(PLANS)]
    size = draw.choice([32, 64])
    needed = GROUPS.get(kind, 1) * (LONGEST // size + 2)  # of one request of the greatest length
    options = {
        "block_size": size,
        "max_model_len": LONGEST,
        "max_num_seqs": AT_ONCE,
        "max_num_batched_tokens": draw.choice([17, 24, 33, 64, 100, 257, 512, 1000, 2048]),
        "num_gpu_blocks_override": needed + draw.choice([0, 1, 2, 3, 5, 8]),
        "enable_prefix_caching": draw.random() < 0.8,
        "scheduling_policy": draw.choice(["fcfs", "priority"]),
    }
    favourites = draw.sample(PICTURES, 3)  # few, so that prefixes are found again
    requests = [_draw_request(draw, favourites, options) for _ in range(draw.randint(6, 12))]
    return {"number": number, "kind": kind, "options": options, "requests": requests}


def _draw_request(draw: random.Random, pictures: list[tuple[int, int]], options: dict[str, Any]) -> dict[str, Any]:
    count, seed = draw.choice(pictures if draw.random() < 0.8 else PICTURES)
    question = draw.choice(QUESTIONS) + draw.choice(["", "", " And why?"])
    text = f"<|im_start|>user\n{placeholder('qwen2_5_vl') * count}{question}<|im_end|>\n<|im_start|>assistant\n"
    return {
        "prompt": text,
        "pictures": [count, seed],
        "tokens": draw.randint(1, MOST_TOKENS),
        "arrives": draw.choice([0, 0, 0, draw.randint(1, 60)]),
        "aborted": draw.randint(1, 80) if draw.random() < 0.15 else None,
        "priority": draw.randint(0, 3) if options["scheduling_policy"] == "priority" else 0,
        "temperature": 1.0 if draw.random() < 0.15 else 0.0,
    }


def alone(request: dict[str, Any]) -> str:
    """Names what decides a greedy answer."""
    return f"{request['pictures']} {request['prompt']}"


def difference(found: dict[str, Any], wanted: dict[str, Any], tie: float = 1e-3) -> str | None:
    """How a greedy answer, which may be shorter, differs from the same request's alone; None if it does not.

    Where the two best tokens of the request alone lie within `tie` of each other, either is right, and what comes behind is
    another answer.
    """
    if found["prompt"] != wanted["prompt"]:
        return "another prompt"
    for i, (token, true) in enumerate(zip(found["tokens"], wanted["tokens"], strict=False)):
        if token != true:
            return None if wanted["gaps"][i] < tie else f"token {i} is {token} instead of {true}"
        if abs(found["logprobs"][i] - wanted["logprobs"][i]) > tie:
            return f"the logprob of token {i} is {found['logprobs'][i]:.4f} instead of {wanted['logprobs'][i]:.4f}"
    return None
