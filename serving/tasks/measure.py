"""Numbers from decisions: accuracy, its breakdown, and what counts only if several answers are right together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from .task import Judged


def accuracy(judged: Sequence[Judged]) -> float:
    """Share of right answers; there has to be one."""
    return sum(j.correct for j in judged) / len(judged)


def by_group(judged: Sequence[Judged], kind: str) -> dict[str, list[Judged]]:
    """The decisions of each group of that kind, in the order of the groups' names."""
    groups: dict[str, list[Judged]] = {}
    for j in judged:
        if kind in j.item.groups:
            groups.setdefault(j.item.groups[kind], []).append(j)
    return dict(sorted(groups.items()))


def breakdown(judged: Sequence[Judged], *kinds: str) -> dict[str, float]:
    """`group/accuracy` for all groups of these kinds."""
    return {f"{g}/accuracy": accuracy(part) for kind in kinds for g, part in by_group(judged, kind).items()}


def together(judged: Sequence[Judged], key: Callable[[Judged], Hashable]) -> float:
    """Share of the keys whose answers are all right."""
    right: dict[Hashable, bool] = {}
    for j in judged:
        right[key(j)] = right.get(key(j), True) and j.correct
    return sum(right.values()) / len(right)


def mean(values: Mapping[str, float] | Sequence[float]) -> float:
    """The plain mean; there has to be a value."""
    numbers = list(values.values()) if isinstance(values, Mapping) else list(values)
    return sum(numbers) / len(numbers)


def yes_no(judged: Sequence[Judged]) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of "yes", and the share of answers that say yes.

    An answer that says neither is wrong: it lowers accuracy, and recall if yes was right. A ratio over nothing is 0.
    """
    said = sum(j.answer == "yes" for j in judged)
    gold = sum(j.item.gold == "yes" for j in judged)
    hits = sum(j.answer == "yes" and j.item.gold == "yes" for j in judged)
    return {
        "accuracy": accuracy(judged),
        "precision": hits / said if said else 0.0,
        "recall": hits / gold if gold else 0.0,
        "f1": 2 * hits / (said + gold) if hits else 0.0,
        "yes_ratio": said / len(judged),
    }
