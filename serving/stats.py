"""Statistics of paired answers and of repeated measurements."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

import torch

RESAMPLES = 10_000
_CHUNK = 2**22  # numbers drawn at a time


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of b minus accuracy of a on the same questions, with a 95 % bootstrap interval (shares, not percent)."""

    difference: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float
    n: int


def paired_difference(
    a: Sequence[bool], b: Sequence[bool], seed: int = 0, clusters: Sequence[Hashable] | None = None
) -> PairedDifference:
    """Bootstrap over questions: resample pairs, so that what both get right or wrong cancels.

    Args:
        clusters: one label per question; questions that share one (the same picture) are drawn together.

    Raises:
        ValueError: other lengths, or no questions.
    """
    delta = _differences(a, b, clusters)
    count = len(a)
    generator = torch.Generator().manual_seed(seed)
    if clusters is None or len(set(clusters)) == count:
        means = _resampled_pairs(delta.count(-1) / count, delta.count(1) / count, count, generator)
    else:
        means = _resampled_clusters(delta, clusters, generator)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.quantile(means, ends).tolist()
    return PairedDifference(sum(delta) / count, low, high, count)


def _differences(a: Sequence[bool], b: Sequence[bool], clusters: Sequence[Hashable] | None) -> list[int]:
    if len(a) != len(b) or not a or (clusters is not None and len(clusters) != len(a)):
        raise ValueError(f"paired answers are needed, got {len(a)} and {len(b)}")
    return [int(y) - int(x) for x, y in zip(a, b, strict=True)]


def _resampled_pairs(worse: float, better: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """Means of resamples, which are told by how often they drew a pair that got worse and one that got better."""
    n = torch.full((RESAMPLES,), float(count), dtype=torch.float64)
    lost = torch.binomial(n, torch.full_like(n, worse), generator=generator)
    gain = min(better / (1 - worse), 1.0) if better else 0.0
    won = torch.binomial(n - lost, torch.full_like(n, gain), generator=generator)
    return (won - lost) / count


def _resampled_clusters(delta: Sequence[int], clusters: Sequence[Hashable], generator: torch.Generator) -> torch.Tensor:
    """Means of resamples of whole clusters: sum of differences over number of questions drawn."""
    place = {label: i for i, label in enumerate(dict.fromkeys(clusters))}
    where = torch.tensor([place[c] for c in clusters])
    sums = torch.zeros(len(place), dtype=torch.float64).index_add_(0, where, torch.tensor(delta, dtype=torch.float64))
    sizes = torch.bincount(where).double()
    rows = max(1, _CHUNK // len(place))
    found = []
    for start in range(0, RESAMPLES, rows):
        size = (min(rows, RESAMPLES - start), len(place))
        picks = torch.randint(len(place), size, generator=generator)
        found.append(sums[picks].sum(1) / sizes[picks].sum(1))
    return torch.cat(found)


def sign_test(differences: Iterable[float]) -> float:
    """Exact two-sided sign test; zeros are left out. Returns p: 1 where nothing differs."""
    values = list(differences)
    up, down = sum(d > 0 for d in values), sum(d < 0 for d in values)
    n, few = up + down, min(up, down)
    if 2 * few == n:
        return 1.0
    return min(1.0, 2 * sum(comb(n, k) for k in range(few + 1)) / 2**n)


def mcnemar(a: Sequence[bool], b: Sequence[bool], clusters: Sequence[Hashable] | None = None) -> float:
    """Exact McNemar test of paired right and wrong answers: the sign test of the answers that changed sides.

    Args:
        clusters: one label per question; the net change of each cluster then counts as one.

    Raises:
        ValueError: other lengths, or no questions.
    """
    delta = _differences(a, b, clusters)
    if clusters is None:
        return sign_test(delta)
    net: dict[Hashable, int] = {}
    for label, d in zip(clusters, delta, strict=True):
        net[label] = net.get(label, 0) + d
    return sign_test(net.values())


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for being several, by Holm's step-down method, in the order given."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted, least = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = least
    return adjusted


def spread(values: Sequence[float]) -> Spread:
    """Median and range; there has to be a value."""
    return Spread(median(values), min(values), max(values), len(values))


def share(values: Sequence[bool]) -> float:
    """Share of true values; there has to be one."""
    return sum(values) / len(values)
