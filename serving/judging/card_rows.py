"""What a model card says of a comparison: `results` of compare.json, which `lostattn push --results` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def card_rows(accuracy: Sequence[Mapping[str, Any]], dataset: str) -> list[dict[str, Any]]:
    """Two rows per patched model: its accuracy, and that less the original's, each with its 95 % interval.

    Args:
        accuracy: rows of `judge`, the original's first.
        dataset: what the report calls the questions; may be empty.
    """
    base, found = accuracy[0], []
    for row in accuracy[1:]:
        common = {"model": row["name"], "dataset": dataset or "questions", "n": row["n"]}
        interval, difference = row["interval"], row["difference"]
        found += [
            {**common, "metric": "accuracy", "value": row["accuracy"], **interval, "base": base["accuracy"]},
            {**common, "metric": "accuracy_difference", "value": difference["difference"],
             "low": difference["low"], "high": difference["high"]},
        ]  # fmt: skip
    return found
