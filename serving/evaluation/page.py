"""An evaluation as files: JSON, Markdown, and one HTML page that stands alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..benchmark import report as bench_report
from ..disk import disk_errors, write_json
from ..pages.forest import Forest, forest
from ..pages.pictures import thumbnail
from ..pages.render import render
from ..pages.words import MARGIN_TEXT, filled, interval_text, percent, share_text
from ..stats import MARGIN
from . import report as words

QUESTION, ANSWER = 700, 300  # characters that are shown
PLOT_NOTE = f"The shaded band is {MARGIN_TEXT} to each side; an arrow stands where a value lies outside of the axis."


def write_report(
    report: Mapping[str, Any], out: Path, pictures: Mapping[tuple[str, str], Any] | None = None
) -> list[Path]:
    """`NAME.json`, `NAME.md` and `NAME.html` of `report["command_name"]`; what was written.

    Args:
        pictures: (task, id) of a question that changed -> its picture, opened or as a data URL.
    """
    name = report.get("command_name", "eval")
    with disk_errors(f"cannot write {out}"):
        write_json(out / f"{name}.json", report)
        (out / f"{name}.md").write_text(words.markdown(report), encoding="utf-8")
        (out / f"{name}.html").write_text(page(report, pictures), encoding="utf-8")
    return [out / f"{name}.{kind}" for kind in ("json", "md", "html")]


def page(report: Mapping[str, Any], pictures: Mapping[tuple[str, str], Any] | None = None) -> str:
    """The whole page; arguments as of `write_report`."""
    models, results, bench = report["models"], report["results"], report.get("bench")
    compared = [row for row in results if "difference" in row]
    saving, changed = words.saving_table(report), report.get("changed") or []
    moved = any(len({a["correct"] for a in q["answers"]}) > 1 for q in changed)
    texts = {f"Plan of {m['name']}": json.dumps(m["sap"], indent=1) for m in models if m.get("sap")}
    texts |= {f"First prompt of {t['task']}": t["first_prompt"] for t in report["tasks"]}
    return render(
        "evaluation",
        command=report.get("command_name", "eval"),
        title=words.title(report),
        subtitle=_subtitle(report),
        lead=words.lead(report),
        cards=[_card(report, i) for i in range(len(models))],
        plot=_forest(report) if compared else None,
        plot_note=PLOT_NOTE,
        first=models[0]["name"],
        single=None if compared else results,
        table=filled(words.HEAD, words.result_rows(results)),
        changed=_by_task(changed, pictures or {}),
        changed_title="Questions whose answer changed" if moved else "Some questions",
        bench=bench_report.context(bench) if bench else None,
        saving_head=saving[0] if saving else [],
        saving=saving[1] if saving else [],
        notes=words.notes(report),
        texts=texts,
        facts=words.facts(report),
        metrics={t["task"]: words.metric_rows(results, t["task"]) for t in report["tasks"]},
    )


def _subtitle(report: Mapping[str, Any]) -> str:
    tasks = ", ".join(f"{t['task']} ({t['n']} questions)" for t in report["tasks"])
    return f"{tasks}. {'Every model was asked the same questions with the same prompts.' if len(report['models']) > 1 else ''}"


def _forest(report: Mapping[str, Any]) -> Forest:
    numbers = {m["name"]: i for i, m in enumerate(report["models"])}
    groups = []
    for task in report["tasks"]:
        mine = [row for row in report["results"] if row["task"] == task["task"]]
        rows = [
            {
                "name": row["model"],
                "number": numbers.get(row["model"], 0),
                "difference": row["difference"],
                "right": percent(row["accuracy"]["share"]),
                "verdict": row["verdict"],
            }
            for row in mine
            if "difference" in row
        ]
        note = f"{task['n']} questions, {mine[0]['model']} {share_text(mine[0]['accuracy'])}" if mine else ""
        groups.append((task["task"], note, rows))
    return forest(groups, MARGIN)


def _card(report: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One model's figures: right answers if there is one task, else its verdicts; plan, memory and speed."""
    model = report["models"][number]
    rows = [row for row in report["results"] if row["model"] == model["name"]]
    card: dict[str, Any] = {
        "name": model["name"],
        "number": number,
        "facts": _plan_facts(model),
        "where": "",
        "verdicts": [],
    }
    card["big"] = percent(rows[0]["accuracy"]["share"]) if len(rows) == 1 else ""
    card["small"] = "right" if number or len(report["models"]) == 1 else "right; the others are compared with this"
    compared = [row for row in rows if "verdict" in row]
    if len(rows) == 1:
        card["verdicts"] = [(row["verdict"], "") for row in compared]
        if compared:
            card["facts"] = {"difference": interval_text(rows[0]["difference"])} | card["facts"]
    elif compared:
        card["verdicts"] = [(verdict, ", ".join(where)) for verdict, where in words.by_verdict(compared)]
    else:
        card["facts"] = {row["task"]: percent(row["accuracy"]["share"]) for row in rows} | card["facts"]
    if number and report.get("bench"):
        measured, card["where"] = bench_report.headline(report["bench"], model["name"])
        card["facts"] |= measured
    return card


def _plan_facts(model: Mapping[str, Any]) -> dict[str, str]:
    plan = model.get("plan") if model.get("sap") else None
    names = {"prior": "mode", "layers": "layers", "heads": "heads", "whole KV groups": "whole_groups"}
    return {name: str(plan[key]) for name, key in names.items()} if plan else {}


def _by_task(
    changed: Sequence[Mapping[str, Any]], pictures: Mapping[tuple[str, str], Any]
) -> list[tuple[str, list[dict[str, Any]]]]:
    results: dict[str, list[dict[str, Any]]] = {}
    for question in changed:
        picture = pictures.get((question["task"], question["id"]))
        url, tiny = thumbnail(picture) if picture is not None else ("", False)
        shown = {
            "question": _cut(question["question"].replace("<image>", "").strip(), QUESTION),
            "answers": _same(question),
        }
        results.setdefault(question["task"], []).append({**question, **shown, "picture": url, "tiny": tiny})
    return list(results.items())


def _same(question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answers, those that are the same together."""
    results: dict[tuple[str, bool], list[str]] = {}
    for answer in question["answers"]:
        text = _cut(answer["text"].strip() or "(nothing)", ANSWER)
        results.setdefault((text, answer["correct"]), []).append(answer["model"])
    return [{"text": text, "correct": correct, "models": models} for (text, correct), models in results.items()]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
