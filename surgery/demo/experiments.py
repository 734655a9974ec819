"""What the demo tries beside the modes: one layer after the other, bands of layers, and plans at equal KV saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...patches.plan import Plan
from ...serving.evaluation.versus import outcome_rows
from ...serving.shape import model_shape
from ..bench_plans import bench_plans
from ..calibration import Calibration
from ..checkpoint.source import Source
from ..efficient.harm import plain_of
from ..evaluation.evaluate import EvalSettings
from ..evaluation.plans import answer_plans
from ..evaluation.tasks import Asked
from ..planner import make_plan
from ..spec import PatchSpec
from ..sweep.grid import plan_key

SAVED = (0.25, 0.5, 0.75)  # shares of the visual KV cache
LEFT_OUT = ("uniform, measured levels", "uniform, score 0")  # of the plans of `lostattn bench plans`, for time
RANDOM = 2  # random choices of KV groups at every share
SHOWN = ("fitted", "efficient", "token pruning", "paper's band", "last layers")  # in the headline
COSTS, FREE = 0.05, 0.01  # a loss that is called one, and one that is called none, in accuracy


def layer_plans(config: Mapping[str, Any], folder: Path, layers: int) -> dict[str, Plan]:
    """Uniform scores of 0 in all heads of every layer alone, and of quarters of the decoder."""
    spans = [(i, i) for i in range(layers)]
    part = layers // 4
    spans += [(first, first + part - 1) for first in range(0, layers, part)]
    specs = {
        f"layer {a}" if a == b else f"layers {a}-{b}": PatchSpec(mode="uniform", layers=f"{a}-{b}", heads="all")
        for a, b in spans
    }
    return {name: make_plan(spec, config, folder).plan for name, spec in specs.items()}


def try_layers(source: Source, asked: Asked, out: Path, settings: EvalSettings) -> list[dict[str, Any]]:
    """One row per layer and band: `name`, `accuracy`, `difference` to the original with its interval, `verdict`, `by_kind`."""
    plans = layer_plans(source.config, source.path, model_shape(source.config).layers)
    original = plain_of(next(iter(plans.values())))
    ways = {"layers-original": original} | {plan_key(plan): plan for plan in plans.values()}
    rows = {row["model"]: row for row in outcome_rows(answer_plans(source, ways, asked, out, settings), settings.seed)}
    return [
        {
            "name": name,
            "accuracy": row["accuracy"]["share"],
            "difference": row["difference"],
            "verdict": row["verdict"],
            "by_kind": {k.removesuffix("/accuracy"): v for k, v in row["metrics"].items() if k.endswith("/accuracy")},
        }
        for name, plan in plans.items()
        for row in [rows[plan_key(plan)]]
    ]


def try_plans(
    source: Source, calibration: Calibration, asked: Asked, out: Path, settings: EvalSettings
) -> dict[str, Any]:
    """Plans at equal KV saved, as `lostattn bench plans` compares them."""
    groups = model_shape(source.config).kv_groups
    counts = [round(share * groups) for share in SAVED]
    return bench_plans(source, calibration, asked, out, counts, RANDOM, settings, without=LEFT_OUT)


def headline(layers: Sequence[Mapping[str, Any]], plans: Mapping[str, Any]) -> str:
    """What was found, in a few sentences."""
    single = [row for row in layers if row["name"].startswith("layer ")]
    named = {
        "cost": [r["name"].split()[1] for r in single if -r["difference"]["difference"] >= COSTS],
        "free": [r["name"].split()[1] for r in single if -r["difference"]["difference"] < FREE],
    }
    at_half = {r["plan"]: r for r in plans["rows"] if abs(r["visual_kv_saved"] - 0.5) < 1e-9}
    kept = {name: row["accuracy"] / plans["original_accuracy"] for name, row in at_half.items()}
    guesses = [value for name, value in kept.items() if name.startswith("random")]
    shown = [name for name in SHOWN if name in kept]
    stated = [f"{name} {100 * kept[name]:.1f} %" for name in shown]
    if guesses:
        stated.append(f"random groups {100 * sum(guesses) / len(guesses):.1f} % (mean of {len(guesses)})")
    return (
        f"Patched alone, {_layers(named['cost'])} 5 points of accuracy or more, {_layers(named['free'])} less than 1. "
        f"With half of the visual KV cache saved, of the original's accuracy are left: {', '.join(stated)}."
    )


def _layers(numbers: Sequence[str]) -> str:
    if not numbers:
        return "no layer costs"
    return (
        f"layer {numbers[0]} costs" if len(numbers) == 1 else f"layers {', '.join(numbers[:-1])} and {numbers[-1]} cost"
    )
