"""An evaluation as one HTML page that stands alone: charts as SVG, no script, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..judging.charts import bars, intervals, svg
from ..judging.page_style import STYLE
from .report import HEAD, conditions, metric_rows, notes, result_rows

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    names = [m["name"] for m in report["models"]]
    title = f"{names[0]} and {len(names) - 1} other model(s)" if len(names) > 1 else names[0]
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{escape(_subtitle(report))}</p>']
    for task in report["tasks"]:
        parts += [f"<h2>{escape(task['task'])}</h2>", task_charts(report["results"], task["task"])]
        parts.append(_folded("All numbers", html_table(*metric_rows(report["results"], task["task"]))))
    parts += ["<h2>All results</h2>", html_table(HEAD, result_rows(report["results"]))]
    parts += [
        "<h2>How this was measured</h2>",
        *(f"<p>{_plain(note)}</p>" for note in [*notes(report), conditions(report)]),
    ]
    parts += [
        _folded(f"Plan of {m['name']}", f"<pre>{escape(json.dumps(m['sap'], indent=1))}</pre>")
        for m in report["models"] if m["sap"]
    ]  # fmt: skip
    parts += [
        _folded(f"First prompt of {t['task']}", f"<pre>{escape(t['first_prompt'])}</pre>") for t in report["tasks"]
    ]
    return frame(f"{title} - lostattn eval", "".join(parts))


def _subtitle(report: Mapping[str, Any]) -> str:
    tasks = ", ".join(f"{t['task']} ({t['n']} items)" for t in report["tasks"])
    return f"{tasks}. Every model was asked the same items with the same prompts."


def task_charts(results: Sequence[Mapping[str, Any]], task: str) -> str:
    """Right answers of every model, and differences to the first."""
    mine = [row for row in results if row["task"] == task]
    shares = [
        (r["model"], i, 100 * r["accuracy"]["share"], f"{100 * r['accuracy']['share']:.1f} %")
        for i, r in enumerate(mine)
    ]
    changes = [
        (r["model"], *(100 * r["difference"][k] for k in ("difference", "low", "high")))
        for r in mine
        if "difference" in r
    ]
    charts = [svg(bars("Right answers", "% of the items", shares), _size(len(shares)), f"right answers, {task}")]
    if changes:
        draw = intervals(f"Difference to {mine[0]['model']}", "percentage points, 95 % interval", changes)
        charts.append(svg(draw, _size(len(changes)), f"differences, {task}"))
    return '<div class="charts">' + "".join(f'<figure class="card">{c}</figure>' for c in charts) + "</div>"


def _size(rows: int) -> tuple[float, float]:
    return 4.7, 0.9 + 0.48 * max(rows, 2)


def _plain(text: str) -> str:
    return escape(text).replace("`", "")


def _folded(summary: str, inside: str) -> str:
    return f'<details><summary>{escape(summary)}</summary><div style="height:10px"></div>{inside}</details>'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where the screen is narrow."""
    top = "".join(f"<th>{escape(c)}</th>" for c in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def frame(title: str, body: str) -> str:
    """A page around its content."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style>'
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body><main>{body}</main></body></html>\n'
