"""An evaluation for people: Markdown, JSON and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..disk import disk_errors, write_json
from ..judging.bench_report import table
from ..judging.compare_report import interval_text, p_text, percent, verdict

HEAD = (
    "task", "model", "main number", "right", "difference of right (95 %)", "verdict", "McNemar p (Holm)", "gained / lost",
    "same answer", "unparsed", "cut", "attention path",
)  # fmt: skip
COUNTS = ("n", "unparsed", "guessed", "sets")


def write_report(report: Mapping[str, Any], out: Path) -> list[Path]:
    """`eval.json`, `eval.md` and `eval.html`; what was written."""
    from .page import page

    with disk_errors(f"cannot write {out}"):
        name = report["command_name"]
        write_json(out / f"{name}.json", report)
        (out / f"{name}.md").write_text(markdown(report), encoding="utf-8")
        (out / f"{name}.html").write_text(page(report), encoding="utf-8")
    return [out / f"{name}.{kind}" for kind in ("json", "md", "html")]


def result_rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row per task and model."""
    out = []
    for row in results:
        versus = [""] * 5
        if "difference" in row:
            versus = [
                interval_text(row["difference"]), verdict(row), f"{p_text(row['p'])} ({p_text(row['p_holm'])})",
                f"{row['gained']} / {row['lost']}", percent(row["agreement"]),
            ]  # fmt: skip
        paths = ", ".join(f"{name or 'not known'} {percent(n / row['n'])}" for name, n in row["paths"].items())
        out.append(
            [row["task"], row["model"], f"{row['main_name']} {100 * row['main']:.2f} %", right_text(row), *versus,
             str(row["unparsed"]), str(row["cut"]), paths]
        )  # fmt: skip
    return out


def right_text(row: Mapping[str, Any]) -> str:
    """95.3 % [93.0 %, 97.1 %] of 500."""
    found = row["accuracy"]
    return f"{percent(found['share'])} [{percent(found['low'])}, {percent(found['high'])}] of {row['n']}"


def metric_rows(results: Sequence[Mapping[str, Any]], task: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of all metrics of a task, one column per model."""
    mine = [row for row in results if row["task"] == task]
    names = list(dict.fromkeys(name for row in mine for name in row["metrics"]))
    rows = [[name, *(_metric(name, row["metrics"].get(name)) for row in mine)] for name in names]
    return ["metric", *(row["model"] for row in mine)], rows


def _metric(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if name in COUNTS else f"{100 * value:.2f} %"


def notes(report: Mapping[str, Any]) -> list[str]:
    """How the answers were got and judged, in sentences."""
    out = []
    for task in report["tasks"]:
        shared = f", in {task['clusters']} clusters that share a picture or a question" if task["clusters"] else ""
        out.append(
            f"{task['task']}: {task['n']} items{shared}; data: {task['data']}; prompt `{task['prompt']}`, at most "
            f"{task['max_tokens']} tokens an answer, greedy; parser `{task['parser']}` ({report['harness']})."
        )
    out.append(
        "Right: share of items answered rightly, with a 95 % bootstrap interval. Difference: that share minus the one of the "
        "first model, on the same items (paired bootstrap; items that share a cluster are drawn together). McNemar: exact, "
        "two-sided; in brackets adjusted for all comparisons of this report by Holm. Main number: what the task's papers report, "
        "which is the same share only where it is called accuracy. Answers that cannot be read are wrong, and counted as "
        "unparsed; cut: answers that hit the limit of tokens. Where no answer changed sides the interval is 0 wide: with n items "
        "that says no more than that fewer than about 3/n change."
    )
    return out


def conditions(report: Mapping[str, Any]) -> str:
    """Versions, hardware and the rest in a sentence."""
    how = ", ".join(f"{k} {v}" for k, v in report["how"].items())
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    return (
        f"Asked through: {how}. Seed {report['seed']}. Versions: {versions}. Hardware: {report['hardware']}, "
        f"{report['threads']} thread(s) of torch."
    )


def markdown(report: Mapping[str, Any]) -> str:
    """The whole evaluation."""
    lines = ["# lostattn eval", "", *table(HEAD, result_rows(report["results"])), ""]
    for task in report["tasks"]:
        lines += [f"## {task['task']}", "", *table(*metric_rows(report["results"], task["task"])), ""]
    lines += [part for note in notes(report) for part in (note, "")]
    lines += [conditions(report), "", f"Command: `{report['command']}`.", ""]
    for task in report["tasks"]:
        lines += [f"First prompt of {task['task']}: `{json.dumps(task['first_prompt'], ensure_ascii=False)}`.", ""]
    return "\n".join(lines)
