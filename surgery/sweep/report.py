"""A sweep for people: Markdown, JSON, charts and a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.report import HEAD, conditions, facts, lead, notes, result_rows
from ...serving.pages.charts import png, svg
from ...serving.pages.render import render
from ...serving.pages.words import table
from .draw import grid_charts, maps_left_out
from .tables import Report, breakdown_table, grid_table

TITLES = {
    "table2": "Modes (the paper's Table 2)",
    "heads": "Heads (Tables 4 and 5)",
    "layers": "Layers (Tables 6 and 7)",
    "table8": "Heads, one model a row (Table 8)",
}
CELLS = (
    "Cells: main number of the task in percent, best bold, runner-up underlined; in brackets the difference of the share of "
    "right answers to the original's, in percentage points, with its paired 95 % interval."
)
METHOD = (
    "All plans were put one after the other into one loaded model, which computes what their exported checkpoints compute; the "
    "original is the same model with the empty plan, bit-equal to the plain one. Points of the same plan share their answers."
)


def write_sweep(report: Report, out: Path) -> list[Path]:
    """`sweep.json`, `sweep.md`, `sweep.html` and a PNG per chart; what was written."""
    with disk_errors(f"cannot write {out}"):
        write_json(out / "sweep.json", report)
        pictures = []
        for grid in report["grids"]:
            for name, (draw, size) in grid_charts(report, grid["name"]).items():
                pictures.append(out / f"{_file(name)}.png")
                png(pictures[-1], draw, size)
        (out / "sweep.md").write_text(markdown(report), encoding="utf-8")
        (out / "sweep.html").write_text(page(report), encoding="utf-8")
    return [*(out / f"sweep.{kind}" for kind in ("json", "md", "html")), *pictures]


def _file(name: str) -> str:
    """A name that is one file's on every system."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def markdown(report: Report) -> str:
    """The whole sweep."""
    lines = [f"# lostattn sweep of {report['base']}", "", CELLS, ""]
    for grid in report["grids"]:
        name = grid["name"]
        lines += [f"## {TITLES.get(grid['layout'], name)}", "", *table(*grid_table(report, name)), ""]
        lines += [line for chart in grid_charts(report, name) for line in (f"![{chart}]({_file(chart)}.png)", "")]
        if (left := maps_left_out(report, name)) > 0:
            lines += [f"{left} further heat maps of every task are not drawn; all their points stand in the table.", ""]
        for task in (t["task"] for t in report["tasks"]):
            if (result := breakdown_table(report, name, task)) is not None:
                lines += [f"{task} by group, main number last:", "", *table(*result), ""]
    lines += [f"Note: {note}.\n" for note in report["notes"]]
    lines += [
        "## All plans",
        "",
        _lead(report),
        "",
        *table(*plan_table(report)),
        "",
        *table(HEAD, result_rows(report["results"])),
        "",
    ]
    lines += [METHOD, "", *(part for note in notes(report) for part in (note, ""))]
    lines += [conditions(report), "", f"Command: `{report['command']}`.", ""]
    return "\n".join(lines)


def _lead(report: Report) -> str:
    """The verdict, with plans named by their first point."""
    labels = {p["key"]: p["labels"] for p in reversed(report["points"])}
    called = {key: f"{x['mode']} (layers {x['layers']}, heads {x['heads']})" for key, x in labels.items()}
    return lead(report, "plans", called)


def plan_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """What the plans' keys stand for."""
    names = ("mode", "preset", "scores", "queries", "layers", "heads", "whole_groups")
    head = ["plan", *(n.replace("whole_groups", "whole KV groups") for n in names)]
    return head, [[key, *(str(p["plan"][n]) for n in names)] for key, p in report["plans"].items() if key != "original"]


def page(report: Report) -> str:
    """One HTML page that stands alone."""
    return render(
        "sweep",
        base=report["base"],
        lead=_lead(report),
        cells=CELLS,
        grids=[_grid(report, grid) for grid in report["grids"]],
        plans=plan_table(report),
        head=HEAD,
        rows=result_rows(report["results"]),
        notes=[METHOD, *report["notes"], *notes(report)],
        sap=json.dumps({key: p["sap"] for key, p in report["plans"].items()}),
        facts=facts(report),
    )


def _grid(report: Report, grid: Report) -> dict[str, Any]:
    name, charts = grid["name"], grid_charts(report, grid["name"])
    tables = [(t["task"], breakdown_table(report, name, t["task"])) for t in report["tasks"]]
    return {
        "title": TITLES.get(grid["layout"], name),
        "table": grid_table(report, name),
        "charts": [svg(draw, size, chart) for chart, (draw, size) in charts.items()],
        "wide": any(size[0] > 6 for _, size in charts.values()),
        "breakdowns": [(task, t) for task, t in tables if t is not None],
    }
