"""`lostattn sweep`: every plan of the grids on one loaded model, all on the same items."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.plan import Plan
from ...serving.evaluation.rate import duration
from ...serving.evaluation.versus import Outcome, outcome_rows
from ...serving.pages.charts import need_matplotlib
from ...serving.sides import describe_plan
from ..checkpoint.source import Source, resolve_source
from ..evaluation.evaluate import EvalSettings, circumstances, make_backend, task_facts
from ..evaluation.tasks import Asked
from ..model_fit import check_fit
from ..planner import make_plan
from ..spec import PatchSpec
from .grid import Grid, Point, make_points
from .ready import grids
from .work import Measure, Measured, Plans, Work, measure_heads

ORIGINAL = "original"
Spread = Callable[[Work, Plans], Sequence[str]]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """What a sweep covers, before anything is answered; `plans` has the original first, and equal plans once."""

    work: Work
    grids: Sequence[Grid]
    points: Sequence[Point]
    notes: list[str]
    plans: Plans


def prepare(
    base: str,
    specs: Sequence[str],
    asked: Sequence[Asked],
    out: str | Path,
    settings: EvalSettings,
    calibration: Path | None = None,
    measure: Measure = measure_heads,
) -> Sweep:
    """The exact plans of the grids; arguments and errors as of `run_sweep`."""
    for one in asked:
        one.task.rule(settings.harness)
    source, out = resolve_source(base), Path(out)
    check_fit(source.config, source.tensors)
    measured = Measured(source, out, settings, calibration, measure)
    expanded = grids(specs, source.config)
    points = [p for grid in expanded for p in make_points(grid, source.config, source.path, measured.get)]
    notes = list(
        dict.fromkeys(n for g in expanded for n in g.notes) | dict.fromkeys(n for p in points for n in p.notes)
    )
    for note in notes:
        logger.warning(f"note: {note}")
    plans = _plans(source, points)
    logger.info(f"{len(points)} points of {len(expanded)} grid(s), {len(plans) - 1} different plans and the original")
    return Sweep(Work(source, asked, out, settings), expanded, points, notes, plans)


def run_sweep(
    base: str,
    specs: Sequence[str],
    asked: Sequence[Asked],
    out: str | Path,
    settings: EvalSettings,
    calibration: Path | None = None,
    spread: Spread | None = None,
    measure: Measure = measure_heads,
) -> dict[str, Any]:
    """Evaluate the original and every plan of the grids.

    Several calls with the same `out` share the work: each takes plans that no other has under way.

    Args:
        base: folder or Hub id of a plain checkpoint.
        specs: names of ready-made grids, or YAML files.
        calibration: measured heads; None measures them on built-in pictures when they are needed.
        spread: answers plans elsewhere, and returns notes for the report; what it leaves is answered here.
        measure: measures heads.

    Returns:
        The report, as in `out/sweep.json`; `sweep.md`, `sweep.html` and charts lie beside it, the answers in
        `out/TASK/PLAN.jsonl`. An interrupted call is continued by the next one.

    Raises:
        LostattnError: a grid, model or task that cannot be used, or answers of other settings in `out`.
    """
    from .report import write_sweep

    need_matplotlib()
    began = time.monotonic()
    sweep = prepare(base, specs, asked, out, settings, calibration, measure)
    work, expanded, points, plans = sweep.work, sweep.grids, sweep.points, sweep.plans
    more = spread(work, plans) if spread else ()
    outcomes = _all(work, plans)
    report = {
        "base": work.source.name,
        "grids": [{"name": g.name, "layout": g.layout, "varying": g.varying} for g in expanded],
        "notes": [*sweep.notes, *more],
        "points": [{"grid": p.grid, "key": p.key, "labels": dict(p.labels)} for p in points],
        "plans": {key: {"plan": describe_plan(plan), "sap": plan.to_json()} for key, (plan, _) in plans.items()},
        "tasks": task_facts(asked, outcomes),
        "results": outcome_rows(outcomes, settings.seed),
        **circumstances(settings, make_backend(settings, work.out)),
        "seconds": round(time.monotonic() - began, 1),
    }
    write_sweep(report, work.out)
    logger.info(f"done in {duration(time.monotonic() - began)}")
    return report


def _plans(source: Source, points: Sequence[Point]) -> dict[str, tuple[Plan, str]]:
    """Key -> plan and name for progress; the original first, equal plans once."""
    original = make_plan(PatchSpec(layers="none", heads="all"), source.config, source.path).plan
    results = {ORIGINAL: (original, ORIGINAL)}
    for number, point in enumerate(points, 1):
        name = f"{point.labels['mode']} layers {point.labels['layers']} heads {point.labels['heads']}"
        results.setdefault(point.key, (point.plan, f"point {number} of {len(points)} ({name})"))
    return results


def take_plans(sweep: Sweep) -> None:
    """Answer every plan that no other process has under way, and write no report: what a worker does."""
    for plan, name in sweep.plans.values():
        sweep.work.answer(plan, name)


def _all(work: Work, plans: Plans) -> list[Outcome]:
    """What nobody else has under way first; then what others have left. Task by task, the original first."""
    results = {key: work.answer(plan, name) for key, (plan, name) in plans.items()}
    for key, (plan, name) in plans.items():
        if results[key] is None:
            logger.info(f"waiting for another process: {name}")
            results[key] = work.answer(plan, name, wait=True)
    rows = [rows for key in plans if (rows := results[key]) is not None]
    return [outcomes[i] for i in range(len(work.asked)) for outcomes in rows]
