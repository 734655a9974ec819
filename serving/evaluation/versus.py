"""What the answers of several models say when they are held against those of the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..stats import holm, mcnemar, paired_difference, share
from ..tasks.score import Score
from .store import Reply


@dataclass(frozen=True)
class Outcome:
    """One model's answers to one task, scored."""

    task: str
    model: str
    score: Score
    replies: Sequence[Reply]
    seconds: float

    @property
    def right(self) -> list[bool]:
        """Which items are right, in their order."""
        return [d.judged.correct for d in self.score.decisions]

    @property
    def main(self) -> float:
        """The number that the paper's tables show."""
        return self.score.metrics[self.score.task.main]


def outcome_rows(outcomes: Sequence[Outcome], seed: int = 0) -> list[dict[str, Any]]:
    """One row per task and model; the first outcome of a task is what the others are held against.

    Returns:
        Each with `metrics`, `main`, `accuracy` (share of right items with 95 % interval), `unparsed`, `cut`, and for further
        models `difference` of that share with its interval (bootstrap over clusters of items), exact McNemar `p`, `p_holm`
        over all rows that have one, `gained`, `lost` and `agreement` (equal parsed answers, or equal texts).
    """
    first: dict[str, Outcome] = {}
    rows = []
    for outcome in outcomes:
        base = first.setdefault(outcome.task, outcome)
        rows.append(_alone(outcome, seed) | ({} if outcome is base else _against(base, outcome, seed)))
    compared = [row for row in rows if "p" in row]
    for row, p in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row["p_holm"] = p
    return rows


def clusters(outcome: Outcome) -> list[str] | None:
    """One label per item, or None if no two items share one."""
    labels = [d.judged.item.cluster for d in outcome.score.decisions]
    return labels if len(set(labels)) < len(labels) else None


def _alone(outcome: Outcome, seed: int) -> dict[str, Any]:
    right = outcome.right
    interval = paired_difference([False] * len(right), right, seed, clusters(outcome))
    return {
        "task": outcome.task, "model": outcome.model, "n": len(right), "main": outcome.main,
        "main_name": outcome.score.task.main,
        "accuracy": {"share": interval.difference, "low": interval.low, "high": interval.high},
        "unparsed": int(outcome.score.metrics["unparsed"]), "cut": sum(r.finish == "length" for r in outcome.replies),
        "metrics": dict(outcome.score.metrics), "seconds": round(outcome.seconds, 3),
        "paths": dict(sorted(Counter(r.path for r in outcome.replies).items())),
    }  # fmt: skip


def _against(base: Outcome, outcome: Outcome, seed: int) -> dict[str, Any]:
    theirs, ours, labels = base.right, outcome.right, clusters(base)
    same = [
        a.judged.answer == b.judged.answer if a.judged.answer is not None else a.response == b.response
        for a, b in zip(base.score.decisions, outcome.score.decisions, strict=True)
    ]
    return {
        "difference": asdict(paired_difference(theirs, ours, seed, labels)), "p": mcnemar(theirs, ours, labels),
        "gained": sum(b and not a for a, b in zip(theirs, ours, strict=True)),
        "lost": sum(a and not b for a, b in zip(theirs, ours, strict=True)), "agreement": share(same),
    }  # fmt: skip
