"""The demo's report, for people."""

from __future__ import annotations

import json
from typing import Any


def percent(x: float, signed: bool = False) -> str:
    """0.953 as 95.3 %."""
    return f"{100 * x:{'+' if signed else ''}.1f} %"


def verdict(row: dict[str, Any]) -> str:
    """What the interval of the difference says."""
    d = row["versus_original"]
    if d is None:
        return ""
    if d["high"] < 0:
        return "loses accuracy"
    return "gains accuracy" if d["low"] > 0 else "no loss shown"


def table(report: dict[str, Any]) -> list[list[str]]:
    """Head and rows."""
    kinds = sorted(report["results"][0]["by_kind"])
    head = [
        "prior",
        "layers",
        "heads",
        "whole KV groups",
        "right",
        *kinds,
        "difference (95 %)",
        "same answer",
        "attention path",
        "verdict",
    ]
    rows = []
    for r in report["results"]:
        d = r["versus_original"]
        total = sum(r["paths"].values())
        paths = ", ".join(f"{k} {percent(v / total)}" for k, v in sorted(r["paths"].items())) or "plain SDPA"
        interval = (
            f"{percent(d['difference'], True)} [{percent(d['low'], True)}, {percent(d['high'], True)}]" if d else ""
        )
        rows.append(
            [r["name"], r["layers"], r["heads"], r["whole_groups"], percent(r["accuracy"]),
             *(percent(r["by_kind"][k]) for k in kinds), interval,
             percent(r["agreement"]) if r["agreement"] is not None else "", paths, verdict(r)]
        )  # fmt: skip
    return [head, *rows]


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    head, *rows = table(report)
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    unparsed = ", ".join(f"{r['name']} {r['unparsed']}" for r in report["results"])
    lines = [
        "# lostattn demo", "",
        f"{report['questions']} questions about pictures of held-out handwritten digits, seed {report['seed']}; original and "
        "patched models in the same process, on the same prompts, greedy. Difference: paired bootstrap interval against the "
        f"original. Parser: {report['parser']}.", "",
        "| " + " | ".join(head) + " |", "|" + "---|" * len(head),
        *("| " + " | ".join(r) + " |" for r in rows), "",
        f"Unparsed answers: {unparsed}. Prompt: `{json.dumps(report['prompt'])}`.", "",
        f"Versions: {versions}. Hardware: {report['hardware']}, {report['threads']} thread(s) used.", "",
    ]  # fmt: skip
    return "\n".join(lines)
