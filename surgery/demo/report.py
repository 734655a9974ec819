"""The demo's report, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...serving.pages import charts
from ...serving.pages.forest import forest
from ...serving.pages.pictures import png_url
from ...serving.pages.render import render
from ...serving.pages.words import interval_text, listed, mood, named, percent
from ...serving.pages.words import table as markdown_table
from ...serving.stats import MARGIN

CHOSEN = ("fitted", "efficient", "token pruning", "paper's band", "first layers", "last layers")  # lines of the curve


def table(report: Mapping[str, Any]) -> list[list[str]]:
    """The modes: head and rows."""
    kinds = sorted(report["results"][0]["by_kind"])
    head = ["prior", "layers", "heads", "whole KV groups", "right", *kinds]
    head += ["difference (95 %)", "verdict", "same answer", "attention path"]
    rows = []
    for r in report["results"]:
        difference, total = r["versus_original"], sum(r["paths"].values())
        paths = ", ".join(f"{k} {percent(v / total)}" for k, v in sorted(r["paths"].items())) or "plain SDPA"
        row = [r["name"], r["layers"], r["heads"], r["whole_groups"], percent(r["accuracy"])]
        row += [percent(r["by_kind"][k]) for k in kinds]
        row += [interval_text(difference) if difference else "", r["verdict"]]
        rows.append([*row, percent(r["agreement"]) if r["agreement"] is not None else "", paths])
    return [head, *rows]


def layer_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Layers and bands, uniform scores of 0 in all heads: head and rows."""
    kinds = sorted(rows[0]["by_kind"])
    head = ["patched", "right", *kinds, "difference (95 %)", "verdict"]
    results = []
    for r in rows:
        right = [percent(r["accuracy"]), *(percent(r["by_kind"][k]) for k in kinds)]
        results.append([r["name"], *right, interval_text(r["difference"]), r["verdict"]])
    return [head, *results]


def plan_table(plans: Mapping[str, Any]) -> list[list[str]]:
    """Plans at equal KV saved: head and rows."""
    head = ["visual KV saved", "plan", "right", "difference to the original (95 %)", "efficient minus this (95 %)"]
    return [head] + [
        [
            percent(r["visual_kv_saved"]),
            r["plan"],
            percent(r["accuracy"]),
            interval_text(r["versus_original"]),
            interval_text(r["efficient_minus_this"]) if r["efficient_minus_this"] else "",
        ]
        for r in plans["rows"]
    ]


def note(report: Mapping[str, Any]) -> str:
    """How the questions were asked and judged."""
    plans = report["plans"]
    return (
        f"{report['questions']} questions about pictures of held-out handwritten digits, seed {report['seed']}; original and "
        "patched models in the same process, on the same prompts, greedy. Difference: percentage points, with a paired 95 % "
        "bootstrap interval; verdict: exact McNemar tests, adjusted by Holm, and score tests against a loss of 1 point. "
        f"Plans were chosen and fitted on {plans['calibration_samples']} other questions ({plans['calibrated_on']}). "
        f"Parser: {report['parser']}."
    )


def series(plans: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Name -> points (visual KV saved, accuracy), in percent; random choices as their mean. All begin at the original."""
    results: dict[str, list[tuple[float, float]]] = {}
    start = (0.0, 100 * plans["original_accuracy"])
    for name in CHOSEN:
        points = [(100 * r["visual_kv_saved"], 100 * r["accuracy"]) for r in plans["rows"] if r["plan"] == name]
        if points:
            results[name] = [start, *points]
    guesses: dict[float, list[float]] = {}
    for r in plans["rows"]:
        if r["plan"].startswith("random"):
            guesses.setdefault(100 * r["visual_kv_saved"], []).append(100 * r["accuracy"])
    if guesses:
        results["random groups (mean)"] = [start, *((x, sum(ys) / len(ys)) for x, ys in guesses.items())]
    return results


def _drawing(plans: Mapping[str, Any]) -> charts.Draw:
    def draw(figure: Any, ink: str, faint: str) -> None:
        axes = figure.add_subplot()
        charts.dress(
            axes, ink, faint, "Accuracy over the visual KV cache that is saved", "visual KV cache saved (%)", "% right"
        )
        for number, (name, points) in enumerate(series(plans).items()):
            hollow = charts.second_round(number)
            axes.plot(
                *zip(*points, strict=True),
                color=charts.colour(number),
                label=name,
                marker="o",
                linewidth=2.2,
                linestyle="--" if hollow else "-",
                markerfacecolor="none" if hollow else charts.colour(number),
            )
        axes.set_xticks([0, 25, 50, 75])
        axes.legend(fontsize=8, frameon=False, labelcolor=ink, loc="lower left")

    return draw


def curve(plans: Mapping[str, Any], path: Path) -> None:
    """Accuracy over KV saved as a PNG file; none where matplotlib is not installed."""
    if find_spec("matplotlib") is not None:
        charts.png(path, _drawing(plans), (7.0, 4.0))


def page(report: Mapping[str, Any], gallery: Path) -> str:
    """One HTML page that stands alone; `gallery` is the picture of some answers."""
    first, *others = report["results"]
    modes = [_lane(r, i, r["versus_original"]) for i, r in enumerate(others, 1)]
    layers = [_lane(r, i, r["difference"]) for i, r in enumerate(report["layers"], 1)]
    losing = [r["name"] for r in others if mood(r["verdict"]) == "bad"]
    unparsed = ", ".join(f"{r['name']} {r['unparsed']}" for r in report["results"])
    chart = (
        charts.svg(_drawing(report["plans"]), (7.0, 4.0), "Accuracy over KV saved") if find_spec("matplotlib") else ""
    )
    return render(
        "demo",
        title="A small model: what its answers need",
        first=first["name"],
        subtitle=f"{report['questions']} questions about digits; the original gets {percent(first['accuracy'])} right.",
        lead=report["headline"],
        losing=f"{len(losing)} of {len(others)} patched models lose accuracy{f': {listed(losing)}' if losing else ''}.",
        modes=forest([("", "", modes)], MARGIN),
        mode_rows=table(report),
        layers=forest([("", "", layers)], MARGIN),
        layer_rows=layer_table(report["layers"]),
        chart=chart,
        plan_rows=plan_table(report["plans"]),
        note=note(report),
        gallery=png_url(gallery) if gallery.is_file() else "",
        facts={
            "unparsed answers": unparsed,
            "versions": named(report["versions"]),
            "hardware": report["hardware"],
            "threads": str(report["threads"]),
        },
    )


def _lane(row: Mapping[str, Any], number: int, difference: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "number": number,
        "difference": difference,
        "right": percent(row["accuracy"]),
        "verdict": row["verdict"],
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    unparsed = ", ".join(f"{r['name']} {r['unparsed']}" for r in report["results"])
    lines = ["# lostattn demo", "", report["headline"], "", note(report), ""]
    for title, (head, *rows) in (
        ("Priors", table(report)),
        ("Layers: uniform scores of 0 in all heads", layer_table(report["layers"])),
        ("Plans at equal KV saved", plan_table(report["plans"])),
    ):
        lines += [f"## {title}", "", *markdown_table(head, rows), ""]
    lines += [
        f"Unparsed answers: {unparsed}.",
        "",
        f"Versions: {named(report['versions'])}. Hardware: {report['hardware']}, {report['threads']} thread(s) used.",
        "",
    ]
    return "\n".join(lines)
