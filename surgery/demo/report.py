"""The demo's report, for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...serving.pages.forest import forest
from ...serving.pages.pictures import png_url
from ...serving.pages.render import render
from ...serving.pages.words import interval_text, listed, mood, named, percent
from ...serving.pages.words import table as markdown_table
from ...serving.stats import MARGIN


def table(report: dict[str, Any]) -> list[list[str]]:
    """Head and rows."""
    kinds = sorted(report["results"][0]["by_kind"])
    head = [
        "prior", "layers", "heads", "whole KV groups", "right", *kinds, "difference (95 %)", "verdict", "same answer",
        "attention path",
    ]  # fmt: skip
    rows = []
    for r in report["results"]:
        difference, total = r["versus_original"], sum(r["paths"].values())
        paths = ", ".join(f"{k} {percent(v / total)}" for k, v in sorted(r["paths"].items())) or "plain SDPA"
        rows.append(
            [r["name"], r["layers"], r["heads"], r["whole_groups"], percent(r["accuracy"]),
             *(percent(r["by_kind"][k]) for k in kinds), interval_text(difference) if difference else "", r["verdict"],
             percent(r["agreement"]) if r["agreement"] is not None else "", paths]
        )  # fmt: skip
    return [head, *rows]


def note(report: dict[str, Any]) -> str:
    """How the questions were asked and judged."""
    return (
        f"{report['questions']} questions about pictures of held-out handwritten digits, seed {report['seed']}; original and "
        "patched models in the same process, on the same prompts, greedy. Difference: percentage points, with a paired 95 % "
        "bootstrap interval; verdict: exact McNemar tests, adjusted by Holm, and score tests against a loss of 1 point. "
        f"Parser: {report['parser']}."
    )


def page(report: dict[str, Any], gallery: Path) -> str:
    """One HTML page that stands alone; `gallery` is the picture of some answers."""
    first, *others = report["results"]
    rows = [
        {"name": r["name"], "number": i, "difference": r["versus_original"], "right": percent(r["accuracy"]),
         "verdict": r["verdict"]}
        for i, r in enumerate(others, 1)
    ]  # fmt: skip
    losing = [r["name"] for r in others if mood(r["verdict"]) == "bad"]
    unparsed = ", ".join(f"{r['name']} {r['unparsed']}" for r in report["results"])
    return render(
        "demo", title="A small model, patched in every mode", first=first["name"], rows=table(report), note=note(report),
        subtitle=f"{report['questions']} questions about digits; the original gets {percent(first['accuracy'])} right.",
        lead=f"{len(losing)} of {len(others)} patched models lose accuracy{f': {listed(losing)}' if losing else ''}.",
        plot=forest([("", "", rows)], MARGIN), gallery=png_url(gallery) if gallery.is_file() else "",
        facts={
            "unparsed answers": unparsed, "prompt": report["prompt"], "versions": named(report["versions"]),
            "hardware": report["hardware"], "threads": str(report["threads"]),
        },
    )  # fmt: skip


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    head, *rows = table(report)
    unparsed = ", ".join(f"{r['name']} {r['unparsed']}" for r in report["results"])
    lines = [
        "# lostattn demo", "", note(report), "", *markdown_table(head, rows), "",
        f"Unparsed answers: {unparsed}. Prompt: `{json.dumps(report['prompt'])}`.", "",
        f"Versions: {named(report['versions'])}. Hardware: {report['hardware']}, {report['threads']} thread(s) used.", "",
    ]  # fmt: skip
    return "\n".join(lines)
