"""A sweep's tables, in the layout of the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .grid import AXES

TITLES = {"mode": "Mode", "layers": "Layers", "heads": "Heads", "queries": "Queries", "scores": "Scores"}
VARIANTS = {"vision_attention": "+ Vis. Attn.", "patch_complexity": "+ Patch Comp.", "noise": "+ Noise"}
PRINTED = {
    "pope": "POPE",
    "realworldqa": "RWQA",
    "3dsrbench": "3DSRBench",
    "mmmu": "MMMU",
    "vmcbench": "VMCBench",
    "hallusionbench": "HallusionBench",
    "mathvista": "MathVista",
}
LAYOUTS = {"table2": ("mode", "layers"), "heads": ("heads",), "layers": ("layers",), "table8": ("heads",)}
Report = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]


def results_of(report: Report) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(task, plan's key) -> result."""
    return {(row["task"], row["model"]): row for row in report["results"]}


def points_of(report: Report, grid: str) -> list[Mapping[str, Any]]:
    """The points of a grid, in its order."""
    return [p for p in report["points"] if p["grid"] == grid]


def grid_table(report: Report, grid: str, marked: bool = True) -> Table:
    """Head and rows: the original, then every point, one column per task with its main number in percent.

    Behind it, where it is not the original's, the difference of the share of right answers with its 95 % interval, in points.

    Args:
        marked: best number of a column bold, runner-up underlined, as the paper does.
    """
    layout = layout_of(report, grid)
    if layout == "table8":
        return _columns_of_bands(report, grid)
    axes, points = _axes(report, grid), points_of(report, grid)
    shown = [a for a in axes if not (layout == "table2" and a == "mode")]
    tasks = [t["task"] for t in report["tasks"]]
    titles = ["Affected Layers"] if layout == "table2" else [TITLES[a] for a in shown]
    head = ["Model / Variant" if layout == "table2" else "Model", *titles, *(PRINTED.get(t, t) for t in tasks)]
    rows = [[report["base"], *("/" for _ in shown)]]
    for point in points:
        name = VARIANTS.get(point["labels"]["mode"], point["labels"]["mode"]) if layout == "table2" else ""
        rows.append([name, *(_layers(v) if layout == "table2" else v for v in (point["labels"][a] for a in shown))])
    for task in tasks:
        keys = ["original", *(p["key"] for p in points)]
        for row, cell in zip(rows, column(report, task, keys, marked), strict=True):
            row.append(cell)
    return head, rows


def _layers(label: str) -> str:
    """As the paper's Table 2 writes a window of layers."""
    first, dash, last = label.partition("-")
    return f"[{first}, {last}]" if dash and last.isdigit() else label


def layout_of(report: Report, grid: str) -> str:
    """`table2`, `heads`, `layers`, `table8`, or "" for a grid of the user's own."""
    return str(next(g["layout"] for g in report["grids"] if g["name"] == grid))


def _axes(report: Report, grid: str) -> Sequence[str]:
    (result,) = (g for g in report["grids"] if g["name"] == grid)
    return LAYOUTS.get(result["layout"]) or result["varying"] or list(AXES)


def column(report: Report, task: str, keys: Sequence[str], marked: bool = True) -> list[str]:
    """One task's cells for these plans."""
    result = results_of(report)
    rows = [result[task, key] for key in keys]
    ranks = sorted({round(100 * row["main"], 2) for row in rows}, reverse=True)
    return [_cell(row, ranks if marked and len(ranks) > 1 else []) for row in rows]


def _cell(row: Mapping[str, Any], ranks: Sequence[float]) -> str:
    value = round(100 * row["main"], 2)
    text = f"{value:.2f}"
    if ranks and value == ranks[0]:
        text = f"**{text}**"
    elif len(ranks) > 2 and value == ranks[1]:
        text = f"<u>{text}</u>"
    return f"{text} {change(row)}".rstrip()


def change(row: Mapping[str, Any]) -> str:
    """(-1.2 [-2.0, +0.1]); nothing for the original."""
    if "difference" not in row:
        return ""
    value, low, high = (f"{100 * row['difference'][k]:+.1f}" for k in ("difference", "low", "high"))
    return f"({value} [{low}, {high}])"


def _columns_of_bands(report: Report, grid: str) -> Table:
    """Table 8: one row per task, one column per band."""
    points = points_of(report, grid)
    head = [
        "Model",
        *(["Task"] if len(report["tasks"]) > 1 else []),
        "original",
        *(p["labels"]["heads"] for p in points),
    ]
    rows = []
    for task in (t["task"] for t in report["tasks"]):
        cells = column(report, task, ["original", *(p["key"] for p in points)])
        rows.append([report["base"], *([PRINTED.get(task, task)] if len(report["tasks"]) > 1 else []), *cells])
    return head, rows


def breakdown_table(report: Report, grid: str, task: str) -> Table | None:
    """The task's groups as columns, as in Tables 4-7; None if it has none."""
    result, points = results_of(report), points_of(report, grid)
    base = result[task, "original"]
    names = [name for name in base["metrics"] if name.endswith("/accuracy")]
    if not names:
        return None
    axes = _axes(report, grid)
    head = [*(TITLES[a] for a in axes), *(n.removesuffix("/accuracy") for n in names), base["main_name"]]
    rows = [["/" for _ in axes] + _percents(base, names)]
    rows += [[p["labels"][a] for a in axes] + _percents(result[task, p["key"]], names) for p in points]
    return head, rows


def _percents(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    values = [row["metrics"].get(name) for name in names]
    return [f"{100 * v:.2f}" if v is not None else "" for v in [*values, row["main"]]]
