"""Statistics of paired right and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of b minus accuracy of a on the same questions, with a 95 % bootstrap interval (shares, not percent)."""

    difference: float
    low: float
    high: float
    n: int


def paired_difference(a: Sequence[bool], b: Sequence[bool], seed: int = 0) -> PairedDifference:
    """Bootstrap over questions: resample pairs, so that what both get right or wrong cancels.

    Raises:
        ValueError: other lengths, or no questions.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"paired answers are needed, got {len(a)} and {len(b)}")
    count = len(a)
    worse = sum(x and not y for x, y in zip(a, b, strict=True))
    better = sum(y and not x for x, y in zip(a, b, strict=True))
    # a resample is told by how often it drew a pair that got worse and one that got better
    generator = torch.Generator().manual_seed(seed)
    n = torch.full((RESAMPLES,), float(count), dtype=torch.float64)
    lost = torch.binomial(n, torch.full_like(n, worse / count), generator=generator)
    gain = better / (count - worse) if better else 0.0
    won = torch.binomial(n - lost, torch.full_like(n, gain), generator=generator)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.quantile((won - lost) / count, ends).tolist()
    return PairedDifference((better - worse) / count, low, high, count)


def share(values: Sequence[bool]) -> float:
    """Share of true values; there has to be one."""
    return sum(values) / len(values)
