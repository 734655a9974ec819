"""What a sweep covers: the cross of modes, layers, heads, queries and scores rules, from YAML or ready-made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...patches.plan import Plan
from ..calibration import Calibration
from ..planner import make_plan
from ..ranges import Heads, format_numbers
from ..spec import PatchSpec
from ..yaml_file import read_yaml

AXES = {"mode": "modes", "layers": "layers", "heads": "heads", "queries": "queries", "scores": "scores"}
FIXED = ("preset", "blend", "seed", "temperature", "options", "rank_by", "dynamic", "calibration")
MOST = 10_000  # points


@dataclass(frozen=True)
class Grid:
    """One cross product.

    Attributes:
        name: as reports call it.
        axes: mode, layers, heads, queries, scores -> the values to try; None is what preset and family say.
        fixed: further options of a `PatchSpec`, the same at every point.
        notes: how it was adapted to the model.
        layout: of its table: `table2`, `heads`, `layers`, `table8`, or "" for the axes that vary.
    """

    name: str
    axes: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    layout: str = ""

    def specs(self) -> list[PatchSpec]:
        """One spec per point, modes varying slowest. LostattnError for values that cannot be."""
        values = [self.axes.get(axis) or [None] for axis in AXES]
        if (count := _product(values)) > MOST:
            raise LostattnError(f"grid '{self.name}' has {count} points: give at most {MOST}")
        options = (dict(zip(AXES, chosen, strict=True)) for chosen in product(*values))
        return [PatchSpec(**{k: v for k, v in {**self.fixed, **w}.items() if v is not None}) for w in options]

    @property
    def varying(self) -> list[str]:
        """The axes that have several values."""
        return [axis for axis in AXES if len(self.axes.get(axis) or ()) > 1]


@dataclass(frozen=True)
class Point:
    """One plan of a grid.

    Attributes:
        labels: axis -> value, as tables show it.
        notes: what the planner said about it.
    """

    grid: str
    labels: Mapping[str, str]
    plan: Plan
    notes: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Names the plan; points of the same plan share their answers."""
        return plan_key(self.plan)


def plan_key(plan: Plan) -> str:
    """Names a plan: file names of its answers."""
    if plan.inert:
        return "original"
    return "plan-" + hashlib.sha256(json.dumps(plan.to_json(), sort_keys=True).encode()).hexdigest()[:12]


def make_points(
    grid: Grid, config: Mapping[str, Any], folder: Path, calibrate: Callable[[], Calibration]
) -> list[Point]:
    """The exact plans of a grid, before anything is computed. LostattnError names the point that cannot be."""
    points = []
    for spec in grid.specs():
        try:
            planned = make_plan(spec, config, folder, calibrate)
        except LostattnError as error:
            raise LostattnError(f"grid '{grid.name}', {_spec_text(spec)}: {error}") from error
        points.append(Point(grid.name, _labels(spec, planned.plan), planned.plan, planned.notes))
    return points


def _spec_text(spec: PatchSpec) -> str:
    shown = {axis: getattr(spec, axis) for axis in AXES if getattr(spec, axis) is not None}
    return ", ".join(f"{axis} {value}" for axis, value in shown.items())


def _labels(spec: PatchSpec, plan: Plan) -> dict[str, str]:
    return {
        "mode": plan.mode,
        "layers": format_numbers(plan.layers),
        "heads": _heads_text(spec.heads, plan),
        "queries": plan.queries,
        "scores": plan.scores,
    }


def _heads_text(wanted: Heads | None, plan: Plan) -> str:
    """A band as the paper writes it, [0.3, 0.6]."""
    from ...patches.family import get_family

    wanted = get_family(plan.family).heads if wanted is None else wanted
    if isinstance(wanted, str) and wanted.count("-") == 1 and ":" not in wanted:
        low, high = wanted.split("-")
        wanted = float(low), float(high)
    if isinstance(wanted, tuple):
        return (
            f"[{wanted[0]:.1f}, {wanted[1]:.1f}]"
            if all(round(x, 1) == x for x in wanted)
            else f"[{wanted[0]:g}, {wanted[1]:g}]"
        )
    if isinstance(wanted, Mapping):
        return "; ".join(f"{layer}: {format_numbers(heads)}" for layer, heads in sorted(wanted.items()))
    return str(wanted)


def _product(values: Sequence[Sequence[Any]]) -> int:
    count = 1
    for one in values:
        count *= len(one)
    return count


def read_grid(path: str | Path) -> Grid:
    """Read a YAML file: lists (or single values) under modes, layers, heads, queries, scores; and what stays fixed.

    Raises:
        LostattnError: no such file, not YAML, unknown keys, values that are no list.
    """
    path = Path(path)
    raw = read_yaml(path, "the sweep's spec")
    known = ["name", *AXES.values(), *FIXED]
    if unknown := sorted(str(k) for k in raw if k not in known):
        raise LostattnError(
            f"the sweep's spec {path} has unknown keys {', '.join(unknown)}: known are {', '.join(known)}"
        )
    fixed = {k: raw[k] for k in FIXED if raw.get(k) is not None}
    if "calibration" in fixed:  # as written, relative to the spec
        fixed["calibration"] = str(path.parent / str(fixed["calibration"]))
    axes = {axis: _values(raw.get(key), key) for axis, key in AXES.items() if raw.get(key) is not None}
    grid = Grid(str(raw.get("name") or path.stem), axes, fixed)
    grid.specs()  # wrong values are told now
    return grid


def _values(raw: Any, key: str) -> list[Any]:
    """A list as it is, one value as a list of one. A pair of numbers is one window of layers or one band of heads."""
    values = raw if isinstance(raw, list) else [raw]
    if not values:
        raise LostattnError(f"{key} of the sweep's spec is empty: give at least one value, or leave it out")
    if key in ("layers", "heads"):
        return [_pair(v, key) if isinstance(v, list) else v if isinstance(v, dict) else str(v) for v in values]
    if not all(isinstance(v, str) for v in values):
        raise LostattnError(f"{key} of the sweep's spec must be texts, not {values!r:.80}")
    return list(dict.fromkeys(values))


def _pair(value: list[Any], key: str) -> str:
    if len(value) != 2 or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
        raise LostattnError(
            f"{key} of the sweep's spec: {value!r:.60} is no pair of two numbers such as [1, 27] or [0.3, 0.6]"
        )
    return f"{value[0]}-{value[1]}"
