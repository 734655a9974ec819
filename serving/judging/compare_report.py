"""The comparison for people: Markdown, JSON, the answers, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .bench_report import body, conditions, size_text, table

HEAD = (
    "model", "right", "difference (95 %)", "verdict", "McNemar p (Holm)", "gained / lost", "same answer", "unparsed",
    "cut", "layers", "heads", "whole KV groups",
)  # fmt: skip


def percent(x: float, signed: bool = False) -> str:
    """0.953 as 95.3 %."""
    return f"{100 * x:{'+' if signed else ''}.1f} %"


def verdict(row: Mapping[str, Any]) -> str:
    """What the interval of the difference says; nothing for the original."""
    if "difference" not in row:
        return ""
    low, high = row["difference"]["low"], row["difference"]["high"]
    if high < 0:
        return "loses accuracy"
    return "gains accuracy" if low > 0 else "no difference shown"


def p_text(p: float) -> str:
    """A p value with two figures."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def interval_text(difference: Mapping[str, Any]) -> str:
    """-1.2 % [-2.0 %, +0.1 %]."""
    return (
        f"{percent(difference['difference'], True)} "
        f"[{percent(difference['low'], True)}, {percent(difference['high'], True)}]"
    )


def points_text(difference: Mapping[str, Any]) -> str:
    """-1.2 [-2.0, +0.1] points."""
    value, low, high = (f"{100 * difference[k]:+.1f}" for k in ("difference", "low", "high"))
    return f"{value} [{low}, {high}] points"


def accuracy_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row per model."""
    out = []
    for model, row in zip(report["models"], report["accuracy"], strict=True):
        plan, versus = model["plan"], [""] * 5
        if "difference" in row:
            versus = [
                interval_text(row["difference"]), verdict(row), f"{p_text(row['p'])} ({p_text(row['p_holm'])})",
                f"{row['gained']} / {row['lost']}", percent(row["agreement"]),
            ]  # fmt: skip
        out.append(
            [row["name"], percent(row["accuracy"]), *versus, str(row["unparsed"]), str(row["cut"]), plan["layers"],
             plan["heads"], plan["whole_groups"]]
        )  # fmt: skip
    return out


def notes(report: Mapping[str, Any]) -> list[str]:
    """How the answers were got and judged, in sentences."""
    n = report["questions"]
    intervals = "pictures (questions about one picture are drawn together)" if report["clusters"] else "questions"
    out = [
        f"{n} questions{' from ' + report['data'] if report['data'] else ''}, each model through vLLM's server with the same "
        f"options, temperature 0, at most {report['max_tokens']} tokens an answer, {report['concurrency']} at once. All models "
        "read the same prompt token ids, question by question.",
        f"Difference: accuracy minus that of {report['base']}, with a 95 % bootstrap interval over {intervals}; McNemar: exact, "
        "two-sided, adjusted for several models by Holm. Unparsed answers count as wrong. "
        f"Where no answer changed sides the interval is 0 wide: all that it says is that fewer than about {3 / n:.1%} change.",
    ]
    rules = "; ".join(f"{kind}: {rule}" for kind, rule in report["parser"]["rules"].items())
    return [*out, f"Parser `{report['parser']['version']}`. {rules}. Prompt: {report['prompt']}."]


def saving_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Predicted KV cache of a request, of the original's."""
    return [
        [m["name"], m["plan"]["mode"], *(percent(p["kv_share"]) for p in m["predicted_kv"])] for m in report["models"]
    ]


def saving_head(report: Mapping[str, Any]) -> list[str]:
    """Head of that table."""
    return ["model", "mode", *(f"{p['visual']} visual tokens" for p in report["models"][0]["predicted_kv"])]


def kind_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Accuracy by kind of answer."""
    names = [m["name"] for m in report["models"]]
    return [
        [kind, str(found[names[0]][1]), *(percent(found[n][0] / found[n][1]) for n in names)]
        for kind, found in report["by_kind"].items()
    ]


def markdown(report: Mapping[str, Any]) -> str:
    """The whole comparison."""
    names = [m["name"] for m in report["models"]]
    lines = ["# lostattn compare", "", *table(HEAD, accuracy_rows(report)), ""]
    lines += [part for note in notes(report) for part in (note, "")]
    if len(report["by_kind"]) > 1:
        lines += [*table(["answers", "questions", *names], kind_rows(report)), ""]
    lines += [
        "## KV cache of a request, predicted",
        "",
        "128 text tokens and one picture; share of the original's.",
        "",
    ]
    lines += [*table(saving_head(report), saving_rows(report)), ""]
    if report["bench"]:
        lines += ["## Speed and memory, measured", "", *body(report["bench"])]
    else:
        lines += [conditions(report), ""]
    lines += [
        f"First prompt: `{json.dumps(report['first_prompt'], ensure_ascii=False)}`. "
        f"vLLM options: `{' '.join(report['options'])}`.",
        "",
    ]
    return "\n".join(lines)


def headline(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures that answer the user's question, one entry per patched model."""
    out = []
    for row in report["accuracy"][1:]:
        entry = {
            "name": row["name"], "accuracy": percent(row["accuracy"]), "difference": points_text(row["difference"]),
            "agreement": percent(row["agreement"]), "verdict": verdict(row),
        }  # fmt: skip
        out.append(entry | (_measured(report["bench"], row["name"]) if report["bench"] else {}))
    return out


def _measured(bench: Mapping[str, Any], name: str) -> dict[str, str]:
    rows = [r for r in bench["summary"] if r["side"] == name]
    last = max(rows, key=lambda r: (r["visual"], r["concurrency"]))
    ratio = last["ratios"]["output_tokens_per_s"]
    kv = {r["side"]: r["bytes"] for r in bench["kv"] if r["visual"] == last["visual"]}
    return {
        "throughput": f"{ratio['median']:.2f}x" if ratio else "-",
        "where": f"{last['visual']} visual tokens, {last['concurrency']} at once",
        "kv": f"{size_text(kv[name])}, {kv[name] / kv[bench['base']]:.2f}x"
        if kv[bench["base"]]
        else size_text(kv[name]),
    }
