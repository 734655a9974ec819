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
    delta = torch.tensor(b, dtype=torch.float64) - torch.tensor(a, dtype=torch.float64)
    # a resample of values -1, 0, 1 is a draw of their counts
    weights = torch.stack([(delta == v).double() for v in (-1.0, 0.0, 1.0)]).mean(1)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.multinomial(weights.expand(RESAMPLES, -1), len(a), replacement=True, generator=generator)
    means = (draws.double() - 1).mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return PairedDifference(float(delta.mean()), low, high, len(a))


def share(values: Sequence[bool]) -> float:
    """Share of true values."""
    return sum(values) / len(values)
