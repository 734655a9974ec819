"""What the answers of several models say when they are held against those of the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..stats import (
    MARGIN,
    Equivalence,
    equivalence,
    holm,
    mcnemar,
    paired_difference,
    questions_needed,
    share,
    smallest_difference,
    verdict,
)
from ..tasks.score import Decision, Score
from .store import Reply

POWER_HEAD = ("task", "model", "questions", "changed sides", "smallest difference seen", "questions for 1 point")


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
        over all rows that have one, `gained`, `lost`, `agreement` (equal parsed answers, or equal texts), `same_text`,
        `equivalence` (tests against a loss or gain of the margin, not adjusted) and `verdict` in words.
    """
    first: dict[str, Outcome] = {}
    rows = []
    for outcome in outcomes:
        base = first.setdefault(outcome.task, outcome)
        rows.append(_alone(outcome, seed) | ({} if outcome is base else _against(base, outcome, seed)))
    compared = [row for row in rows if "p" in row]
    for row, p in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row["p_holm"] = p
        row["verdict"] = verdict(row["difference"]["difference"], p, Equivalence(**row["equivalence"]))
    return rows


def power_rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What the comparisons could have seen, under `POWER_HEAD`: one row per task and further model of `outcome_rows`.

    By the exact McNemar test, two-sided at 5 %, with 80 % power, at the share of answers that changed sides here (one at
    least) and with the design effect of the task's clusters.
    """
    out = []
    for row in (r for r in results if "equivalence" in r):
        changed, n = row["gained"] + row["lost"], row["n"]
        effect = n / row["equivalence"]["effective_n"]
        seen = smallest_difference(n, max(changed, 1) / n, design_effect=effect)
        needed = questions_needed(MARGIN, max(changed, 1) / n, design_effect=effect)
        least = "none" if seen is None else f"{100 * seen:.1f} points"
        out.append([row["task"], row["model"], str(n), f"{changed} ({100 * changed / n:.1f} %)", least, str(needed)])
    return out


def changed_questions(outcomes: Sequence[Outcome], most: int = 12) -> list[dict[str, Any]]:
    """Questions of one task whose answer changed sides, with every model's answer.

    Args:
        outcomes: of one task; the first is what the others are held against.
        most: how many. Those that a model lost come first, but leave a third of the places to those that one gained. Where
            nothing changed, questions from all over the task.
    """
    base, *others = (o.right for o in outcomes)
    lost = [i for i, right in enumerate(base) if right and not all(r[i] for r in others)]
    gained = [i for i, right in enumerate(base) if not right and any(r[i] for r in others)]
    picked = [*lost[: most - min(len(gained), most // 3)], *gained][:most]
    if not picked:
        picked = sorted({k * len(base) // most for k in range(most)})
    return [_question(outcomes, i) for i in picked]


def _question(outcomes: Sequence[Outcome], index: int) -> dict[str, Any]:
    item = outcomes[0].score.decisions[index].judged.item
    said = [(o.model, o.score.decisions[index]) for o in outcomes]
    return {
        "task": outcomes[0].task,
        "id": item.id,
        "row": item.row,
        "question": item.text,
        "gold": _with_option(item.gold, item.options),
        "answers": [_answer(model, d) for model, d in said],
    }


def _with_option(gold: str | Sequence[str], options: Mapping[str, str]) -> str:
    """B. a cat; several right answers behind each other."""
    if not isinstance(gold, str):
        return ", ".join(gold)
    return f"{gold}. {options[gold]}" if options.get(gold) else gold


def _answer(model: str, decision: Decision) -> dict[str, Any]:
    answer = decision.judged.answer
    shown = answer if answer is None or isinstance(answer, str) else ", ".join(map(str, answer))
    return {"model": model, "text": decision.response, "answer": shown, "correct": decision.judged.correct}


def clusters(outcome: Outcome) -> list[str] | None:
    """One label per item, or None if no two items share one."""
    labels = [d.judged.item.cluster for d in outcome.score.decisions]
    return labels if len(set(labels)) < len(labels) else None


def _alone(outcome: Outcome, seed: int) -> dict[str, Any]:
    right = outcome.right
    interval = paired_difference([False] * len(right), right, seed, clusters(outcome))
    return {
        "task": outcome.task,
        "model": outcome.model,
        "n": len(right),
        "main": outcome.main,
        "main_name": outcome.score.task.main,
        "accuracy": {"share": interval.difference, "low": interval.low, "high": interval.high},
        "unparsed": int(outcome.score.metrics["unparsed"]),
        "cut": sum(r.finish == "length" for r in outcome.replies),
        "metrics": dict(outcome.score.metrics),
        "seconds": round(outcome.seconds, 3),
        "paths": dict(sorted(Counter(r.path for r in outcome.replies).items())),
    }


def _against(base: Outcome, outcome: Outcome, seed: int) -> dict[str, Any]:
    theirs, ours, labels = base.right, outcome.right, clusters(base)
    same = [
        a.judged.answer == b.judged.answer if a.judged.answer is not None else a.response == b.response
        for a, b in zip(base.score.decisions, outcome.score.decisions, strict=True)
    ]
    texts = [a.text == b.text for a, b in zip(base.replies, outcome.replies, strict=True)]
    return {
        "difference": asdict(paired_difference(theirs, ours, seed, labels)),
        "p": mcnemar(theirs, ours, labels),
        "gained": sum(b and not a for a, b in zip(theirs, ours, strict=True)),
        "lost": sum(a and not b for a, b in zip(theirs, ours, strict=True)),
        "agreement": share(same),
        "same_text": share(texts),
        "equivalence": asdict(equivalence(theirs, ours, clusters=labels)),
    }
