"""Rows for the model card out of the reports that `lostattn compare` and `lostattn eval` write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...patches.errors import LostattnError
from ...patches.plan import Plan


def is_report(raw: Any) -> bool:
    """Whether parsed JSON tells of several models, as compare.json and eval.json do."""
    return isinstance(raw, Mapping) and isinstance(raw.get("models"), list)


def report_rows(raw: Mapping[str, Any], plan: Plan, name: str, path: object) -> list[Any]:
    """The rows about the model that carries this plan.

    Args:
        raw: the report.
        plan, name: of the folder that is pushed; the name decides between models that carry the same plan.
        path: of the report, for messages.

    Raises:
        LostattnError: the report measured other plans, or several models with this one.
    """
    if not isinstance(raw.get("results"), list):
        raise LostattnError(f"{path} is a report without results: make it anew with this version of lostattn")
    mine = [str(m.get("name")) for m in raw["models"] if isinstance(m, Mapping) and _carries(m, plan)]
    if not mine:
        raise LostattnError(
            f"{path} measured other plans than the one of this folder: give the report about this model"
        )
    if len(mine) > 1 and name not in mine:
        raise LostattnError(
            f"{path} measured this plan in {', '.join(mine)}: call the folder like one of them, or give a report about one"
        )
    model = name if name in mine else mine[0]
    rows = [row for row in raw["results"] if isinstance(row, Mapping) and row.get("model") == model]
    return _from_eval(rows, raw) if isinstance(raw.get("tasks"), list) else [_without_model(row) for row in rows]


def _carries(model: Mapping[str, Any], plan: Plan) -> bool:
    try:
        return Plan.from_json(model.get("sap")) == plan
    except LostattnError:
        return False


def _without_model(row: Mapping[str, Any]) -> dict[Any, Any]:
    return {key: value for key, value in row.items() if key != "model"}


def _from_eval(rows: Sequence[Mapping[str, Any]], raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Share of right answers and its difference to the original's, with their intervals, and the task's main number.

    The main number has a row where it is not that share. Free questions are named by their data.
    """
    free = {t["task"]: t.get("data") for t in raw["tasks"] if isinstance(t, Mapping) and t.get("task") == "questions"}
    first: dict[Any, Mapping[str, Any]] = {}
    for row in raw["results"]:
        if isinstance(row, Mapping):
            first.setdefault(row.get("task"), row)
    results = []
    for row in rows:
        base = first[row.get("task")]
        common = {"dataset": free.get(row.get("task")) or row.get("task"), "n": row.get("n")}
        right, theirs = _mapping(row.get("accuracy")), _mapping(base.get("accuracy"))
        results.append(
            {
                **common,
                "metric": "accuracy",
                "value": right.get("share"),
                "low": right.get("low"),
                "high": right.get("high"),
                "base": None if base is row else theirs.get("share"),
            }
        )
        if less := _mapping(row.get("difference")):
            results.append(
                {
                    **common,
                    "metric": "accuracy_difference",
                    "value": less.get("difference"),
                    "low": less.get("low"),
                    "high": less.get("high"),
                }
            )
        if row.get("main_name") != "accuracy":
            main = None if base is row else base.get("main")
            results.append({**common, "metric": row.get("main_name"), "value": row.get("main"), "base": main})
    return results


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
