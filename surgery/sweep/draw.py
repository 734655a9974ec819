"""A sweep's charts: a curve where one axis varies, heat maps where several do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from ...serving.pages.charts import Draw, colour, dress
from .tables import TITLES, Report, points_of, results_of

MAPS = 24  # heat maps of one grid and task at most
Size = tuple[float, float]
Chart = tuple[Draw, Size]


def grid_charts(report: Report, grid: str) -> dict[str, Chart]:
    """Name -> how to draw it and its size in inches. Differences of the share of right answers to the original's."""
    (facts,) = (g for g in report["grids"] if g["name"] == grid)
    varying, points = list(facts["varying"]), points_of(report, grid)
    charts: dict[str, Chart] = {}
    for task in (t["task"] for t in report["tasks"]):
        if len(varying) < 2:
            axis = varying[0] if varying else "mode"
            charts[f"{grid}-{task}"] = curve(report, points, task, axis)
            continue
        across, down, *others = sorted(varying, key=lambda a: (-len(_values(points, a)), a))
        slices = list(product(*(_values(points, a) for a in others)))[:MAPS]
        for number, chosen in enumerate(slices):
            mine = [p for p in points if all(p["labels"][a] == v for a, v in zip(others, chosen, strict=True))]
            end = f"-{number + 1}" if others else ""
            name = ", ".join([task, *chosen])
            charts[f"{grid}-{task}{end}"] = heat_map(report, mine, task, across, down, name)
    return charts


def maps_left_out(report: Report, grid: str) -> int:
    """How many heat maps of each task are not drawn, since there would be too many."""
    (facts,) = (g for g in report["grids"] if g["name"] == grid)
    points, count = points_of(report, grid), 1
    for axis in sorted(facts["varying"], key=lambda a: (-len(_values(points, a)), a))[2:]:
        count *= len(_values(points, axis))
    return max(0, count - MAPS)


def _values(points: Sequence[Mapping[str, Any]], axis: str) -> list[str]:
    return list(dict.fromkeys(p["labels"][axis] for p in points))


def _differences(report: Report, task: str, points: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, float]]:
    """(difference, low, high) of each point, in points of percent; 0 where a point is the original itself."""
    result = results_of(report)
    rows = [result[task, p["key"]].get("difference") or {} for p in points]
    return [(_percent(row, "difference"), _percent(row, "low"), _percent(row, "high")) for row in rows]


def _percent(row: Mapping[str, Any], name: str) -> float:
    return 100 * float(row.get(name, 0.0))


def curve(report: Report, points: Sequence[Mapping[str, Any]], task: str, axis: str) -> Chart:
    """Differences along one axis, in the grid's order, with their 95 % intervals."""
    labels = [p["labels"][axis] for p in points]
    values = _differences(report, task, points)

    def draw(figure: Any, ink: str, faint: str) -> None:
        axes = figure.add_subplot()
        dress(axes, ink, faint, f"{task}: difference to the original", TITLES[axis], "percentage points, 95 %")
        xs = range(len(values))
        axes.axhline(0, color=ink, linewidth=1)
        axes.plot(xs, [v[0] for v in values], color=colour(0), linewidth=1.5, alpha=0.5 if axis != "mode" else 0.0)
        rising = [b[0] > a[0] for a, b in pairwise(values)] + [False]
        for x, (value, low, high), up in zip(xs, values, rising, strict=True):
            axes.plot([x, x], [low, high], color=colour(0), linewidth=4, solid_capstyle="round", alpha=0.4)
            axes.plot([x], [value], color=colour(0), marker="o", markersize=7)
            axes.annotate(
                f"{value:+.1f}",
                (x, value),
                xytext=(7, -12 if up else 6),
                textcoords="offset points",
                fontsize=8.5,
                color=ink,
            )
        axes.set_xticks(xs, labels, rotation=0 if max(map(len, labels)) < 11 else 20)
        axes.set_xlim(-0.5, len(values) - 0.3)
        reach = max(2.0, *(abs(x) for v in values for x in v)) * 1.1
        only_losses = min(v[1] for v in values) < -0.25 * reach and max(v[2] for v in values) <= 0.25 * reach
        axes.set_ylim(-reach, 0.25 * reach if only_losses else reach)

    return draw, (max(4.7, 1.0 + 0.85 * len(values)), 3.3)


def heat_map(
    report: Report, points: Sequence[Mapping[str, Any]], task: str, across: str, down: str, title: str
) -> Chart:
    """Differences over two axes; a star where the 95 % interval leaves out 0."""
    columns, lines = _values(points, across), _values(points, down)
    cells = {
        (p["labels"][down], p["labels"][across]): value
        for p, value in zip(points, _differences(report, task, points), strict=True)
    }
    reach = max([2.0, *(abs(v[0]) for v in cells.values())])

    def draw(figure: Any, ink: str, faint: str) -> None:
        axes = figure.add_subplot()
        dress(axes, ink, faint, f"{title}: difference to the original", TITLES[across], TITLES[down])
        table = [[cells.get((y, x), (float("nan"),))[0] for x in columns] for y in lines]
        shown = axes.imshow(table, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
        for (y, x), (value, low, high) in cells.items():
            text = f"{value:+.1f}{'*' if low > 0 or high < 0 else ''}"
            dark = abs(value) > 0.6 * reach
            place = columns.index(x), lines.index(y)
            axes.text(*place, text, ha="center", va="center", fontsize=8.5, color="#ffffff" if dark else "#1d2127")
        axes.set_xticks(range(len(columns)), columns, rotation=0 if max(map(len, columns)) < 9 else 25)
        axes.set_yticks(range(len(lines)), lines)
        axes.grid(False)
        bar = figure.colorbar(shown, ax=axes, shrink=0.9)
        bar.set_label("points (*: interval without 0)", fontsize=8.5, color=ink)
        bar.ax.tick_params(colors=ink, labelsize=8)
        bar.outline.set_visible(False)

    return draw, (2.6 + 0.8 * len(columns), 1.5 + 0.5 * len(lines))
