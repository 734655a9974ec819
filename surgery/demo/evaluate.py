"""The demo's results: rows of an evaluation's report, with the plan of each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_TOKENS = 4  # the longest answer and the end of the turn; a longer answer is wrong anyway


def demo_rows(report: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per model; shares in [0, 1].

    Args:
        report: of `evaluation.evaluate.run_eval`, the original first.
        names: what the demo calls the models, by their names in the report.

    Returns:
        `name`, `layers`, `heads`, `whole_groups`, `accuracy`, `by_kind`, `unparsed`, `versus_original` (paired difference with
        interval) and `agreement` (both None for the original), `verdict` ("" for it), `paths` (attention path -> answers),
        `seconds`.
    """
    rows = []
    for model, row in zip(report["models"], report["results"], strict=True):
        kinds = {k.removesuffix("/accuracy"): v for k, v in row["metrics"].items() if k.endswith("/accuracy")}
        rows.append(
            {
                "name": names[row["model"]],
                **{k: model["plan"][k] for k in ("layers", "heads", "whole_groups")},
                "accuracy": row["accuracy"]["share"],
                "by_kind": kinds,
                "unparsed": row["unparsed"],
                "versus_original": row.get("difference"),
                "agreement": row.get("agreement"),
                "verdict": row.get("verdict", ""),
                "paths": row["paths"],
                "seconds": row["seconds"],
            }
        )
    return rows
