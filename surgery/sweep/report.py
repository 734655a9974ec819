"""A sweep for people: Markdown, JSON, charts and a page."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.page import frame, html_table
from ...serving.evaluation.report import HEAD, conditions, notes, result_rows
from ...serving.judging.bench_report import table
from ...serving.judging.charts import png, svg
from .draw import grid_charts, maps_left_out
from .tables import Report, breakdown_table, grid_table

TITLES = {
    "table2": "Modes (the paper's Table 2)", "heads": "Heads (Tables 4 and 5)", "layers": "Layers (Tables 6 and 7)",
    "table8": "Heads, one model a row (Table 8)",
}  # fmt: skip
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
            if (found := breakdown_table(report, name, task)) is not None:
                lines += [f"{task} by group, main number last:", "", *table(*found), ""]
    lines += [f"Note: {note}.\n" for note in report["notes"]]
    lines += ["## All plans", "", *table(*plan_table(report)), "", *table(HEAD, result_rows(report["results"])), ""]
    lines += [METHOD, "", *(part for note in notes(report) for part in (note, ""))]
    lines += [conditions(report), "", f"Command: `{report['command']}`.", ""]
    return "\n".join(lines)


def plan_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """What the plans' keys stand for."""
    names = ("mode", "preset", "scores", "queries", "layers", "heads", "whole_groups")
    head = ["plan", *(n.replace("whole_groups", "whole KV groups") for n in names)]
    return head, [[key, *(str(p["plan"][n]) for n in names)] for key, p in report["plans"].items() if key != "original"]


def page(report: Report) -> str:
    """One HTML page that stands alone."""
    parts = [f"<h1>Sweep of {escape(report['base'])}</h1>", f'<p class="soft">{escape(CELLS)}</p>']
    for grid in report["grids"]:
        name = grid["name"]
        parts += [
            f"<h2>{escape(TITLES.get(grid['layout'], name))}</h2>",
            html_table(*grid_table(report, name, marked=False)),
        ]
        charts = (svg(draw, size, chart) for chart, (draw, size) in grid_charts(report, name).items())
        parts.append('<div class="charts">' + "".join(f'<figure class="card">{c}</figure>' for c in charts) + "</div>")
        for task in (t["task"] for t in report["tasks"]):
            if (found := breakdown_table(report, name, task)) is not None:
                parts.append(f"<h3>{escape(task)} by group</h3>{html_table(*found)}")
    parts += ["<h2>All plans</h2>", html_table(*plan_table(report)), html_table(HEAD, result_rows(report["results"]))]
    said = [METHOD, *report["notes"], *notes(report), conditions(report), f"Command: {report['command']}"]
    parts += ["<h2>How this was measured</h2>", *(f"<p>{escape(x).replace('`', '')}</p>" for x in said)]
    plans = {key: p["sap"] for key, p in report["plans"].items()}
    parts.append(f"<details><summary>Plans</summary><pre>{escape(json.dumps(plans))}</pre></details>")
    return frame(f"Sweep of {report['base']} - lostattn", "".join(parts))
