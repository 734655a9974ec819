"""Measured results for the model card: rows of a JSON report, as the Hub's model-index and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...patches.errors import LostattnError
from ...patches.plan import Plan
from ...serving.disk import read_json
from .reports import is_report, report_rows

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "image-text-to-text"
HEADING = "## Evaluation"


@dataclass(frozen=True)
class Result:
    """One measured number.

    Attributes:
        dataset: its name for people. dataset_id: its Hub id, if it has one. split: of the dataset.
        metric: such as `accuracy`.
        value, low, high: the patched model's number and its 95 % interval, in the metric's own unit.
        n: questions.
        base: the original's number on the same questions.
    """

    dataset: str
    metric: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    base: float | None = None
    dataset_id: str | None = None
    split: str | None = None

    @property
    def interval(self) -> str:
        """`0.71 to 0.77`, or empty."""
        return "" if self.low is None or self.high is None else f"{self.low:.4g} to {self.high:.4g}"


def read_results(path: str | Path, plan: Plan, name: str) -> tuple[Result, ...]:
    """Rows of compare.json or eval.json about the model of this plan, or the rows of a file that is a list of them.

    Args:
        path: a report, JSON with a list of rows under `results`, or such a list.
        plan, name: of the folder that the results are for.

    Raises:
        LostattnError: no such file, no rows, a report about other models, an unknown or missing key, a value that cannot be.
    """
    raw = read_json(Path(path).expanduser(), f"the results in {path}")
    if is_report(raw):
        rows: Any = report_rows(raw, plan, name, path)
    else:
        rows = raw.get("results") if isinstance(raw, dict) else raw
    if not isinstance(rows, list) or not rows:
        raise LostattnError(f"{path} holds no results: give JSON with a list of rows under 'results'")
    return tuple(_row(row, number, path) for number, row in enumerate(rows, 1))


def eval_results(results: Sequence[Result]) -> list[EvalResult]:
    """The same as the Hub's client writes them into a model-index."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=TASK,
            dataset_type=r.dataset_id or r.dataset,
            dataset_name=r.dataset,
            dataset_split=r.split,
            metric_type=r.metric,
            metric_value=r.value,
            metric_name=_metric_name(r),
            metric_args=_args(r),
        )
        for r in results
    ]


def table(results: Sequence[Result]) -> str:
    """A Markdown section."""
    lines = [
        HEADING,
        "",
        "| dataset | metric | value | 95 % interval | n | original |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        base = "" if r.base is None else f"{r.base:.4g}"
        cells = (_cell(r.dataset), _cell(r.metric), f"{r.value:.4g}", r.interval, f"{r.n:,}", base)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _metric_name(result: Result) -> str:
    interval = f", 95 % interval {result.interval}" if result.interval else ""
    return f"{result.metric} (n = {result.n}{interval})"


def _args(result: Result) -> dict[str, Any]:
    values = {"n": result.n, "low": result.low, "high": result.high, "base": result.base}
    return {key: value for key, value in values.items() if value is not None}


def _row(row: Any, number: int, path: str | Path) -> Result:
    where = f"row {number} of {path}"
    if not isinstance(row, Mapping):
        raise LostattnError(f"{where} is no table of names and values: write dataset, metric, value and n")
    known = [f.name for f in fields(Result)]
    if unknown := sorted(str(key) for key in row if key not in known):
        raise LostattnError(f"{where} has unknown keys {', '.join(unknown)}: known are {', '.join(known)}")
    for name in known:
        _check(name, row.get(name), where)
    return Result(**{str(key): value for key, value in row.items()})


def _check(name: str, value: Any, where: str) -> None:
    required = name in ("dataset", "metric", "value", "n")
    if value is None and not required:
        return
    if name in ("dataset", "metric", "dataset_id", "split"):
        good = isinstance(value, str) and 0 < len(value) <= 200
    elif name == "n":
        good = type(value) is int and value > 0
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good:
        raise LostattnError(
            f"{where} has a wrong {name}: {value!r:.80}" + ("" if value is not None else " (it is missing)")
        )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
