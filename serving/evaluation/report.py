"""An evaluation in words and tables, for Markdown, pages and terminals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..benchmark import report as bench_report
from ..pages.words import MARGIN_TEXT, filled, interval_text, listed, mood, named, p_text, percent, share_text, table

HEAD = (
    "task",
    "model",
    "right % [95 %]",
    "difference [95 %]",
    "verdict",
    "p (Holm)",
    "gained / lost",
    "unparsed / cut",
)
MOODS = ("bad", "mild", "calm", "good")  # worst first
COUNTS = ("n", "unparsed", "guessed", "sets")
STATISTICS = (
    "Right: share of questions answered rightly, with a 95 % bootstrap interval. Difference: that share minus the one of the "
    "first model on the same questions, in percentage points (paired bootstrap; questions that share a cluster are drawn "
    "together). p: exact McNemar test, two-sided; in brackets adjusted for all comparisons of this report by Holm, and "
    "'loses' and 'gains' are said where that is 0.05 at most.",
    f"'No loss larger than {MARGIN_TEXT}' is said where a one-sided score test refuses a loss of {MARGIN_TEXT} or more at 5 % "
    "(Tango 1998; clusters shrink the number of questions). It is not adjusted for being several: that none of the models "
    "loses so much may be claimed only if it is said of all. Where no difference is shown, the loss that is possible is "
    "the end of that test's 95 % bound.",
    "Main number: what the task's papers report, which is the share of right answers only where it is called accuracy. Answers "
    "that cannot be read are wrong, and counted as unparsed; cut: answers that hit the limit of tokens. Where no answer "
    "changed sides the bootstrap's interval is 0 wide, which proves nothing; the test says what n unchanged answers show.",
)


def result_rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row per task and model, under `HEAD`."""
    out = []
    for row in results:
        versus = [""] * 4
        if "difference" in row:
            versus = [
                interval_text(row["difference"]),
                row["verdict"],
                f"{p_text(row['p'])} ({p_text(row['p_holm'])})",
                f"{row['gained']} / {row['lost']}",
            ]
        counts = f"{row['unparsed']} / {row['cut']}"
        out.append([row["task"], row["model"], share_text(row["accuracy"]).replace(" %", ""), *versus, counts])
    return out


def metric_rows(results: Sequence[Mapping[str, Any]], task: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of all numbers of a task, one column per model."""
    mine = [row for row in results if row["task"] == task]
    names = list(dict.fromkeys(name for row in mine for name in row["metrics"]))
    main = mine[0].get("main_name") if mine else None
    rows = [
        [f"{name} (main number)" if name == main else name, *(_metric(name, row["metrics"].get(name)) for row in mine)]
        for name in names
    ]
    stated = {"same answer": "agreement", "same text": "same_text"}
    rows += [
        [name, *(percent(row[key]) if key in row else "" for row in mine)]
        for name, key in stated.items()
        if any(key in row for row in mine)
    ]
    if any("equivalence" in row for row in mine):
        rows.append(["90 % score interval", *(_equivalence(row) for row in mine)])
    if any(row.get("paths") for row in mine):
        rows.append(["attention path", *(_paths(row) for row in mine)])
    return ["metric", *(row["model"] for row in mine)], rows


def _metric(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if name in COUNTS else f"{100 * value:.2f} %"


def _equivalence(row: Mapping[str, Any]) -> str:
    result = row.get("equivalence")
    if not result:
        return ""
    inside = "inside" if result["inside"] else "not inside"
    ends = f"[{100 * result['low']:+.2f}, {100 * result['high']:+.2f}]"
    return f"{ends}, {inside} +-{100 * result['margin']:g} (p {p_text(result['p'])})"


def _paths(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name or 'not known'} {percent(n / row['n'])}" for name, n in row.get("paths", {}).items())


def lead(report: Mapping[str, Any], what: str = "models", called: Mapping[str, str] | None = None) -> str:
    """The verdict in a sentence or two; empty for models that are held against nothing.

    Args:
        called: names to say instead of those in the results.
    """
    rows = [row for row in report["results"] if "verdict" in row]
    names = list(dict.fromkeys(row["model"] for row in rows))
    if not rows:
        return ""
    say = dict(zip(names, names, strict=True)) | dict(called or {})
    if len(rows) == 1:
        first = next(row for row in report["results"] if row["task"] == rows[0]["task"])
        right, base = (percent(row["accuracy"]["share"]) for row in (rows[0], first))
        return f"{say[names[0]]}: {rows[0]['verdict']}. It gets {right} right, {first['model']} {base}."
    if len(names) == 1:
        stated = "; ".join(f"{words} on {listed(where)}" for words, where in by_verdict(rows))
        return f"{say[names[0]]}: {stated}."
    worst = {n: min(MOODS.index(mood(row["verdict"])) for row in rows if row["model"] == n) for n in names}
    losing, little = ([say[n] for n in names if worst[n] == MOODS.index(m)] for m in ("bad", "mild"))
    on = "" if len(report["tasks"]) == 1 else " on a task or more"
    out = f"{len(losing) or 'None'} of {len(names)} {what} lose{'s' * (len(losing) < 2)} accuracy{on}"
    out += f": {listed(losing)}." if losing else "."
    out += f" {listed(little)} lose{'s' * (len(little) == 1)} less than {MARGIN_TEXT}." if little else ""
    kept = sum(mood(row["verdict"]) in ("mild", "good") for row in rows)
    return f"{out} In {kept} of {len(rows)} comparisons there is no loss larger than {MARGIN_TEXT}."


def by_verdict(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Verdicts, losses first, each with the tasks that it is said of, and with the loss that is possible there."""
    results: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda r: MOODS.index(mood(r["verdict"]))):
        words, _, possible = row["verdict"].partition(" (a loss up to ")
        bound = possible.removesuffix(" points is possible)")
        results.setdefault(words, []).append(f"{row['task']} (-{bound} possible)" if bound else row["task"])
    return list(results.items())


def notes(report: Mapping[str, Any]) -> list[str]:
    """How the answers were got and judged, in sentences."""
    out = []
    for task in report["tasks"]:
        shared = f", in {task['clusters']} clusters that share a picture or a question" if task["clusters"] else ""
        out.append(
            f"{task['task']}: {task['n']} questions{shared}; data: {task['data']}; prompt `{task['prompt']}`, at most "
            f"{task['max_tokens']} tokens an answer, greedy; parser `{task['parser']}` ({report['harness']})."
        )
    return [*out, *STATISTICS]


def facts(report: Mapping[str, Any]) -> dict[str, str]:
    """What every number depends on: name -> text."""
    how = {k: " ".join(map(str, v)) if isinstance(v, list | tuple) else v for k, v in report["how"].items()}
    return {
        "asked through": named(how),
        "seed": str(report["seed"]),
        "hardware": report["hardware"],
        "threads of torch": str(report.get("threads") or ""),
        "versions": named(report["versions"]),
        "command": report["command"],
    }


def conditions(report: Mapping[str, Any]) -> str:
    """The same as sentences, without the command."""
    stated = (f"{name.capitalize()}: {text}." for name, text in facts(report).items() if text and name != "command")
    return " ".join(stated)


def title(report: Mapping[str, Any]) -> str:
    """What the report is about."""
    names = [m["name"] for m in report["models"]]
    if len(names) < 3:
        return " and ".join(names)
    patched = all(m.get("sap") for m in report["models"][1:])
    return f"{names[0]} and {'its ' if patched else ''}{len(names) - 1} {'patched' if patched else 'other'} models"


def saving_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """Predicted KV cache of a request, of the original's; None where nothing was predicted."""
    models = [m for m in report["models"] if m.get("predicted_kv")]
    if not models:
        return None
    head = ["model", "mode", *(f"{p['visual']} visual tokens" for p in models[0]["predicted_kv"])]
    rows = [
        [m["name"], (m["plan"] or {}).get("mode", ""), *(percent(p["kv_share"]) for p in m["predicted_kv"])]
        for m in models
    ]
    return head, rows


def markdown(report: Mapping[str, Any]) -> str:
    """The whole evaluation."""
    lines = [
        f"# lostattn {report.get('command_name', 'eval')}: {title(report)}",
        "",
        *([lead(report), ""] if lead(report) else []),
    ]
    lines += [*table(*filled(HEAD, result_rows(report["results"]))), ""]
    if report.get("bench"):
        lines += ["## Speed and memory, measured", "", *bench_report.body(report["bench"])]
    if saving := saving_table(report):
        lines += [
            "## KV cache of a request, predicted",
            "",
            "128 text tokens and one picture; share of the original's.",
            "",
        ]
        lines += [*table(*saving), ""]
    for task in report["tasks"]:
        lines += [f"## {task['task']}", "", *table(*metric_rows(report["results"], task["task"])), ""]
    lines += [part for note in notes(report) for part in (note, "")]
    lines += [conditions(report), "", f"Command: `{report['command']}`.", ""]
    for task in report["tasks"]:
        lines += [f"First prompt of {task['task']}: `{json.dumps(task['first_prompt'], ensure_ascii=False)}`.", ""]
    return "\n".join(lines)
