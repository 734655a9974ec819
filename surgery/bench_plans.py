"""Preset `efficient` against simpler choices of KV groups, at equal KV saved, on questions that chose nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import Plan
from ..serving.data import Example
from ..serving.evaluation.rate import LazyBar
from ..serving.hardware import hardware
from ..serving.shape import Shape, model_shape
from ..serving.stats import paired_difference, share
from .calibration import Calibration
from .chat import Chat, batches, stack
from .checkpoint.provenance import versions
from .checkpoint.source import Source
from .efficient.choose import KEEP_AGREEMENT
from .efficient.frontier import Frontier, Group
from .efficient.search import every_group
from .efficient.swap import Swap, restrict, swapping

CHUNK, BATCH = 2048, 32  # questions encoded at a time, and answered at a time
PARSER = "the stripped answer has to be the expected one, letter for letter; anything else is wrong"
Say = Callable[[str], None]


def bench_plans(
    source: Source,
    calibration: Calibration,
    examples: Sequence[Example],
    counts: Sequence[int] | None = None,
    random_plans: int = 5,
    max_new_tokens: int = 2,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Answer the questions with the original and with every plan, greedily.

    Args:
        calibration: with a frontier.
        examples: questions with answers, other ones than those of the calibration.
        counts: numbers of KV groups to patch; None for what keeps 99 % of the calibration answers.
        random_plans: how many random choices of every size.

    Returns:
        JSON: `rows`, one per plan: accuracy, agreement with the original's answers, and paired 95 % intervals against the
        original and of the efficient plan against it.

    Raises:
        LostattnError: no frontier, a count that is no point of it, or a model that does not load.
    """
    frontier = calibration.frontier
    if frontier is None or not frontier.steps:
        raise LostattnError("the calibration holds no frontier: make one with 'lostattn calibrate --frontier'")
    shape = model_shape(source.config)
    weights = source.identity if calibration.weights else ""
    calibration.check(shape.family.name, shape.layers, shape.heads, shape.kv_heads, weights)
    sizes = [len(frontier.chosen(i + 1)) for i in range(len(frontier.steps))]
    if counts is None:
        counts = [sizes[frontier.choose(KEEP_AGREEMENT, None) - 1]]
    if strange := [c for c in counts if c not in sizes]:
        raise LostattnError(
            f"the frontier has no point with {strange[0]} KV groups: it has {', '.join(map(str, sizes))}"
        )
    of = frontier.settings
    whole = every_group(source, calibration, of["mode"], of["options"], of["seed"])
    chosen = {c: choices(frontier, calibration, shape, c, random_plans) for c in counts}
    distinct = {groups: restrict(whole, groups) for found in chosen.values() for groups in found.values()}
    chat = Chat.load(source.path)
    say(f"{len(distinct)} plans and the original on {len(examples)} questions")
    answered = answer_all(
        chat, whole, [replace(whole, heads={}, levels={}), *distinct.values()], examples, max_new_tokens, say
    )
    right = [[a == e.answer for a, e in zip(found, examples, strict=True)] for found in answered]
    stays = [share([a == b for a, b in zip(found, answered[0], strict=True)]) for found in answered]
    of_plan = dict(zip(distinct, zip(right[1:], stays[1:], strict=True), strict=True))
    rows = [
        {
            "plan": name, "kv_groups": len(groups), "visual_kv_saved": len(groups) / frontier.kv_groups,
            "groups": [list(g) for g in groups], "accuracy": share(of_plan[groups][0]), "agreement": of_plan[groups][1],
            "versus_original": asdict(paired_difference(right[0], of_plan[groups][0])),
            "efficient_minus_this": None if name == "efficient" else asdict(
                paired_difference(of_plan[groups][0], of_plan[found["efficient"]][0])
            ),
        }
        for found in chosen.values()
        for name, groups in found.items()
    ]  # fmt: skip
    return {
        "questions": len(examples), "settings": dict(frontier.settings), "calibrated_on": calibration.data,
        "calibration_samples": frontier.samples, "parser": PARSER, "versions": versions(), "hardware": hardware(),
        "original_accuracy": share(right[0]), "rows": rows,
    }  # fmt: skip


def choices(
    frontier: Frontier, calibration: Calibration, shape: Shape, count: int, random_plans: int
) -> dict[str, tuple[Group, ...]]:
    """Name -> `count` KV groups, chosen in every way."""
    every = [(layer, group) for layer in range(shape.layers) for group in range(shape.kv_heads)]
    step = next(i for i in range(1, len(frontier.steps) + 1) if len(frontier.chosen(i)) == count)
    found = {
        "efficient": frontier.chosen(step),
        "paper's band": tuple(sorted(in_band_first(calibration, shape)[:count])),
        "first layers": tuple(every[:count]),
        "last layers": tuple(every[-count:]),
    }
    for seed in range(random_plans):
        found[f"random {seed}"] = tuple(sorted(random.Random(seed).sample(every, count)))
    return found


def in_band_first(calibration: Calibration, shape: Shape) -> list[Group]:
    """All KV groups, those first that the paper's rule prefers: its layers, then nearness to its band of heads.

    Groups are ranked within their layer by the mean ranking (paper C.3) of their heads, as places from 0 to 1.
    """
    (low, high), (first, last), size = shape.family.heads, shape.family.layers, shape.heads // shape.kv_heads
    keys = {}
    for layer, row in enumerate(calibration.mass):
        means = [sum(row[g * size : (g + 1) * size]) / size for g in range(shape.kv_heads)]
        for group, mean in enumerate(means):
            place = sum(m < mean for m in means) / max(shape.kv_heads - 1, 1)
            keys[layer, group] = (not first <= layer <= last, max(low - place, place - high, 0.0), layer, group)
    return sorted(keys, key=lambda g: keys[g])


def answer_all(
    chat: Chat, whole: Plan, plans: Sequence[Plan], examples: Sequence[Example], max_new_tokens: int, say: Say
) -> list[list[str]]:
    """Greedy answers of every plan to every question; pictures are prepared once."""
    answers, shown = [[""] * len(examples) for _ in plans], LazyBar(say, "questions")
    with swapping(chat.model, whole) as swap:
        for start in range(0, len(examples), CHUNK):
            inputs = [chat.encode(e.open(), e.question) for e in examples[start : start + CHUNK]]
            for plan, found in zip(plans, answers, strict=True):
                _answer(chat, swap, plan, inputs, start, found, max_new_tokens)
            if not shown(start + len(inputs), len(examples)):
                say(f"{start + len(inputs)}/{len(examples)} questions")
    return answers


def _answer(
    chat: Chat, swap: Swap, plan: Plan, inputs: list[dict[str, Any]], start: int, found: list[str], max_new_tokens: int
) -> None:
    swap(plan)
    for batch in batches(inputs, BATCH, chat.model.config.image_token_id):
        texts = chat.generate(stack([inputs[i] for i in batch]), max_new_tokens)
        for i, text in zip(batch, texts, strict=True):
            found[start + i] = text
