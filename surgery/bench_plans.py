"""Preset `efficient`, with fitted scores too, against simpler choices of KV groups, at equal KV saved, on other questions."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import Plan
from ..serving.evaluation.versus import Outcome, outcome_rows
from ..serving.shape import Shape, model_shape
from ..serving.stats import paired_difference
from .calibration import Calibration
from .checkpoint.source import Source
from .efficient.choose import KEEP_AGREEMENT
from .efficient.drop_tokens import TokenDrop, drop_for
from .efficient.fit import start_of
from .efficient.fits import settings_for
from .efficient.frontier import Frontier, Group
from .efficient.harm import plain_of
from .efficient.search import every_group
from .efficient.swap import groups_of, restrict
from .evaluation.backends import InProcess
from .evaluation.evaluate import EvalSettings, circumstances, task_facts, working_in
from .evaluation.plans import Way, answer_plans
from .evaluation.tasks import Asked
from .sweep.grid import plan_key

ORIGINAL = "original"
logger = logging.getLogger(__name__)


def bench_plans(
    source: Source,
    calibration: Calibration,
    asked: Asked,
    out: Path,
    counts: Sequence[int] | None = None,
    random_plans: int = 5,
    settings: EvalSettings | None = None,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Answer the questions with the original and with every plan, greedily.

    Args:
        calibration: with a frontier.
        asked: questions with answers, other ones than those of the calibration.
        out: folder for the answers, `out/TASK/PLAN.jsonl`; an interrupted call is continued by the next one.
        counts: numbers of KV groups to patch; None for what keeps 99 % of the calibration answers.
        random_plans: how many random choices of every size.
        without: names of plans that are left out.

    Returns:
        JSON: `rows`, one per plan: accuracy, agreement with the original's answers, and paired 95 % intervals against the
        original and of the efficient plan against it.

    Raises:
        LostattnError: no frontier, a count that is no point of it, or a model that does not load.
    """
    frontier = calibration.frontier
    if frontier is None or not frontier.steps:
        raise LostattnError("the calibration holds no frontier: make one with 'lostattn calibrate --frontier'")
    settings = settings or EvalSettings(batch=32)
    asked.task.rule(settings.harness)
    shape = model_shape(source.config)
    weights = source.identity if calibration.weights else ""
    calibration.check(shape.family.name, shape.layers, shape.heads, shape.kv_heads, weights)
    counts = _counts(frontier, counts)
    of = frontier.settings
    whole = every_group(source, calibration, of["mode"], of["options"], of["seed"])
    chosen = {
        c: _ways(whole, calibration, shape, choices(frontier, calibration, shape, c, random_plans)) for c in counts
    }
    chosen = {c: {name: way for name, way in found.items() if name not in without} for c, found in chosen.items()}
    distinct = {way_key(way): way for found in chosen.values() for way in found.values()}
    ways = {ORIGINAL: plain_of(whole)} | distinct
    logger.info(f"{len(distinct)} plans and the original on {len(asked.items)} questions")
    with working_in(out):
        outcomes = answer_plans(source, ways, asked, out, settings)
    backend = InProcess(settings.dtype, settings.device, settings.batch)
    return {
        "questions": len(asked.items),
        "settings": dict(frontier.settings),
        "calibrated_on": calibration.data,
        "calibration_samples": frontier.samples,
        "tasks": task_facts([asked], outcomes),
        **circumstances(settings, backend),
        **_rows(chosen, outcomes, frontier, shape.layers, settings.seed),
    }


def way_key(way: Way) -> str:
    """Names a plan, or token pruning: file names of its answers."""
    return way.key if isinstance(way, TokenDrop) else plan_key(way)


def _ways(whole: Plan, calibration: Calibration, shape: Shape, found: Mapping[str, Sequence[Group]]) -> dict[str, Way]:
    """A plan for every choice of groups; the groups of `efficient` with other scores; and token pruning.

    The other scores are those of a fit, if the calibration holds one of these groups, a uniform prior at the measured
    levels, and score 0.
    """
    ways: dict[str, Way] = {name: restrict(whole, groups) for name, groups in found.items()}
    efficient = restrict(whole, found["efficient"])
    wanted = settings_for(efficient)
    for fit in calibration.fits:
        if dict(fit.settings) == wanted:
            ways["fitted"] = fit.applied(efficient)
    if efficient.scores == "log" and efficient.heads:
        level = start_of(efficient)
        zero = {layer: tuple((0.0,) * len(row) for row in rows) for layer, rows in level.weights.items()}
        ways["uniform, measured levels"] = level
        ways["uniform, score 0"] = replace(
            level, weights=zero, levels={layer: (0.0,) * len(row) for layer, row in level.levels.items()}
        )
    saved = len(found["efficient"]) / shape.kv_groups
    if 0 < saved <= (shape.layers - 1) / shape.layers and len(shape.attending) == shape.layers:
        ways["token pruning"] = drop_for(saved, shape.layers)
    return ways


def _counts(frontier: Frontier, counts: Sequence[int] | None) -> Sequence[int]:
    """The numbers of KV groups, checked."""
    sizes = [len(frontier.chosen(i + 1)) for i in range(len(frontier.steps))]
    if counts is None:
        return [sizes[frontier.choose(KEEP_AGREEMENT, None) - 1]]
    if strange := [c for c in counts if c not in sizes]:
        raise LostattnError(
            f"the frontier has no point with {strange[0]} KV groups: it has {', '.join(map(str, sizes))}"
        )
    return counts


def _rows(
    chosen: Mapping[int, Mapping[str, Way]], outcomes: Sequence[Outcome], frontier: Frontier, layers: int, seed: int
) -> dict[str, Any]:
    """`original_accuracy` and `rows`."""
    measured = {row["model"]: row for row in outcome_rows(outcomes, seed)}
    right = {o.model: o.right for o in outcomes}
    rows = []
    for ways in chosen.values():
        best = right[way_key(ways["efficient"])]
        for name, way in ways.items():
            key = way_key(way)
            groups = [] if isinstance(way, TokenDrop) else groups_of(way)
            saved = way.saved(layers) if isinstance(way, TokenDrop) else len(groups) / frontier.kv_groups
            row = measured[key]
            rows.append(
                {
                    "plan": name,
                    "kv_groups": len(groups),
                    "visual_kv_saved": saved,
                    "groups": [list(g) for g in groups],
                    "accuracy": row["accuracy"]["share"],
                    "agreement": row["agreement"],
                    "versus_original": row["difference"],
                    "efficient_minus_this": None
                    if name == "efficient"
                    else asdict(paired_difference(right[key], best, seed)),
                }
            )
    return {"original_accuracy": measured[ORIGINAL]["accuracy"]["share"], "rows": rows}


def choices(
    frontier: Frontier, calibration: Calibration, shape: Shape, count: int, random_plans: int
) -> dict[str, tuple[Group, ...]]:
    """Name -> `count` KV groups, chosen in every way."""
    every = [(layer, group) for layer, kept in enumerate(shape.every) for group in range(kept.kv_heads)]
    step = next(i for i in range(1, len(frontier.steps) + 1) if len(frontier.chosen(i)) == count)
    results = {
        "efficient": frontier.chosen(step),
        "paper's band": tuple(sorted(in_band_first(calibration, shape)[:count])),
        "first layers": tuple(every[:count]),
        "last layers": tuple(every[-count:]),
    }
    for seed in range(random_plans):
        results[f"random {seed}"] = tuple(sorted(random.Random(seed).sample(every, count)))
    return results


def in_band_first(calibration: Calibration, shape: Shape) -> list[Group]:
    """All KV groups, those first that the paper's rule prefers: its layers, then nearness to its band of heads.

    Groups are ranked within their layer by the mean ranking (paper C.3) of their heads, as places from 0 to 1.
    """
    (low, high), (first, last) = shape.family.heads, shape.family.layers
    keys = {}
    for layer in shape.attending:
        row, size = calibration.mass[layer], shape.heads // shape.every[layer].kv_heads
        means = [sum(row[g * size : (g + 1) * size]) / size for g in range(shape.every[layer].kv_heads)]
        for group, mean in enumerate(means):
            place = sum(m < mean for m in means) / max(len(means) - 1, 1)
            keys[layer, group] = (not first <= layer <= last, max(low - place, place - high, 0.0), layer, group)
    return sorted(keys, key=lambda g: keys[g])
