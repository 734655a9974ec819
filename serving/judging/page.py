"""The comparison as one HTML page that stands alone: charts as SVG, pictures as data, no script, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from . import bench_report, compare_report
from .charts import bars, colour, intervals, svg
from .page_style import STYLE
from .questions import Question
from .shots import Shot, choose_shots

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
BADGES = {"loses accuracy": "bad", "gains accuracy": "good"}
WIDE, LOW = (4.7, 3.1), (4.7, 0.9)  # inches


def page(report: Mapping[str, Any], questions: Sequence[Question], answers: Any) -> str:
    """The whole page."""
    title = f"{report['base']} and its patched models"
    parts = [
        f"<h1>{escape(title)}</h1>", f'<p class="soft">{escape(_subtitle(report))}</p>', _headline(report),
        "<h2>Accuracy</h2>", _accuracy(report), _speed(report), _savings(report),
        "<h2>Some questions</h2>", _shots(choose_shots(questions, answers)), "<h2>How this was measured</h2>", _method(report),
    ]  # fmt: skip
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f'<link rel="icon" href="data:,"><title>{escape(title)} - lostattn compare</title><style>{STYLE}</style>'
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


def _subtitle(report: Mapping[str, Any]) -> str:
    source = f" from {report['data']}" if report["data"] else ""
    return (
        f"{report['questions']} questions{source}, asked of every model through vLLM with the same prompts and options. "
        "Differences come with a 95 % interval over paired answers."
    )


def _headline(report: Mapping[str, Any]) -> str:
    first = report["accuracy"][0]
    cards = [_card(first["name"], 0, f"{100 * first['accuracy']:.1f} %", "right, the original", "", {})]
    for number, entry in enumerate(compare_report.headline(report), 1):
        plan = report["models"][number]["plan"]
        facts = {
            "difference": entry["difference"], "same answer": entry["agreement"], "prior": plan["mode"],
            "layers": plan["layers"], "whole KV groups": plan["whole_groups"],
        } | {k: entry[k] for k in ("throughput", "kv") if k in entry}  # fmt: skip
        cards.append(
            _card(entry["name"], number, entry["accuracy"], "right", entry["verdict"], facts, entry.get("where", ""))
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(name: str, number: int, big: str, small: str, badge: str, facts: Mapping[str, str], where: str = "") -> str:
    rows = "".join(f"<dt>{escape(NAMES.get(k, k))}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    mark = f'<span class="badge {BADGES.get(badge, "calm")}">{escape(badge)}</span>' if badge else ""
    at = f'<p class="small" style="margin:10px 0 0">Throughput and KV cache at {escape(where)}.</p>' if where else ""
    return (
        f'<section class="card"><h3><span class="dot" style="background:{colour(number)}"></span>{escape(name)}</h3>'
        f'<p class="big">{escape(big)}</p><p class="small">{escape(small)}</p>{mark}'
        f"{f'<dl>{rows}</dl>' if rows else ''}{at}</section>"
    )


NAMES = {"kv": "KV per request"}


def _accuracy(report: Mapping[str, Any]) -> str:
    rows = report["accuracy"]
    shares = [(r["name"], i, 100 * r["accuracy"], f"{100 * r['accuracy']:.1f} %") for i, r in enumerate(rows)]
    changes = [
        (r["name"], *(100 * r["difference"][k] for k in ("difference", "low", "high")))
        for r in rows
        if "difference" in r
    ]
    charts = [
        svg(bars("Right answers", "% of the questions", shares), _height(len(shares)), "right answers of every model"),
        svg(
            intervals(f"Difference to {report['base']}", "percentage points, 95 % interval", changes),
            _height(len(changes)), "difference to the original with intervals",
        ),
    ]  # fmt: skip
    names = [m["name"] for m in report["models"]]
    kinds = (
        _table(["answers", "questions", *names], compare_report.kind_rows(report)) if len(report["by_kind"]) > 1 else ""
    )
    return _figures(charts) + _gap() + _table(compare_report.HEAD, compare_report.accuracy_rows(report)) + kinds


def _height(rows: int) -> tuple[float, float]:
    return LOW[0], LOW[1] + 0.48 * max(rows, 2)


def _speed(report: Mapping[str, Any]) -> str:
    bench = report["bench"]
    if not bench:
        return ""
    charts = [svg(draw, WIDE, f"chart of {name}") for name, draw in bench_report.charts(bench).items()]
    tables = (
        _table(bench_report.HEAD, bench_report.speed_rows(bench)) + _table(bench_report.KV, bench_report.kv_rows(bench))
        + _table(bench_report.MODELS, bench_report.model_rows(bench))
    )  # fmt: skip
    load = escape(bench_report.body(bench)[0]).replace("`", "")
    return (
        f"<h2>Speed and memory</h2>{_figures(charts)}{_gap()}"
        f"<details open><summary>All figures</summary>{_gap()}{tables}</details>"
        f'<p class="soft">{escape(bench_report.LEGEND).replace("`", "")}</p><p class="soft">{load}</p>'
    )


def _savings(report: Mapping[str, Any]) -> str:
    return (
        "<h2>KV cache of a request, predicted</h2>"
        '<p class="soft">128 text tokens and one picture; share of the original\'s bytes. Only whole KV groups save.</p>'
        + _table(compare_report.saving_head(report), compare_report.saving_rows(report))
    )


def _shots(shots: Sequence[Shot]) -> str:
    return f'<div class="shots">{"".join(map(_shot, shots))}</div>'


def _shot(shot: Shot) -> str:
    said = "".join(
        f'<li><b class="{"yes" if right else "no"}">{"✓" if right else "✗"}</b><span class="who">{escape(name)}</span>'
        f'<span class="what">{escape((text or "(nothing)")[:300])}</span></li>'
        for name, text, right in shot.answers
    )
    return (
        f'<article class="card shot"><div class="frame">'
        f'<img{" class=tiny" if shot.tiny else ""} alt="" src="{shot.picture}"></div>'
        f'<div class="text"><p>{escape(shot.question)}</p><p class="soft">Right: {escape(shot.expected)}</p>'
        f'<ul class="said">{said}</ul></div></article>'
    )


def _method(report: Mapping[str, Any]) -> str:
    notes = "".join(f"<p>{escape(note).replace('`', '')}</p>" for note in compare_report.notes(report))
    plans = "".join(
        f"<details><summary>Plan of {escape(m['name'])}</summary><pre>{escape(json.dumps(m['sap'], indent=1))}</pre></details>"
        for m in report["models"]
        if m["sap"]
    )
    facts = {
        "versions": ", ".join(f"{k} {v}" for k, v in report["versions"].items()), "hardware": report["hardware"],
        "vLLM options": " ".join(report["options"]), "first prompt": report["first_prompt"], "command": report["command"],
    }  # fmt: skip
    rows = "".join(f"<p><b>{escape(k)}</b>: <code>{escape(v)}</code></p>" for k, v in facts.items())
    return f"{notes}{plans}{rows}"


def _figures(charts: Sequence[str]) -> str:
    return '<div class="charts">' + "".join(f'<figure class="card">{chart}</figure>' for chart in charts) + "</div>"


def _gap() -> str:
    return '<div style="height:14px"></div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(c)}</th>" for c in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
