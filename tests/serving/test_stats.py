"""Paired differences against exact and direct computation."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lostattn.serving.stats import paired_difference, share


def exact_interval(a: list[bool], b: list[bool]) -> tuple[float, float]:
    """2.5 % and 97.5 % of the mean over all n^n resamples."""
    delta = [int(y) - int(x) for x, y in zip(a, b, strict=True)]
    means = [sum(pick) / len(delta) for pick in itertools.product(delta, repeat=len(delta))]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize(("a", "b"), [("11100", "11011"), ("100000", "011110"), ("1111", "1111"), ("111", "000")])
def test_small_cases_are_exact(a: str, b: str) -> None:
    right = [c == "1" for c in a], [c == "1" for c in b]
    found = paired_difference(*right)
    low, high = exact_interval(*right)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.difference == pytest.approx(share(right[1]) - share(right[0])) and found.n == len(a)


def test_equals_a_direct_bootstrap() -> None:
    draw = random.Random(0)
    a = [draw.random() < 0.9 for _ in range(400)]
    b = [x if draw.random() < 0.9 else draw.random() < 0.5 for x in a]
    found = paired_difference(a, b)
    delta = np.array(b, dtype=float) - np.array(a, dtype=float)
    picks = np.random.default_rng(1).integers(0, 400, (20_000, 400))
    low, high = np.quantile(delta[picks].mean(1), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert found.low < found.difference < found.high


def test_pairing_narrows() -> None:
    """What both get right or wrong cancels: one changed answer in 200 gives a narrow interval."""
    a = [True, False] * 100
    found = paired_difference(a, [*a[:-1], True])
    assert found.difference == 1 / 200 and found.low == 0 and found.high <= 4 / 200


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.integers(0, 5))
def test_what_always_holds(pairs: list[tuple[bool, bool]], seed: int) -> None:
    a, b = ([pair[i] for pair in pairs] for i in range(2))
    found = paired_difference(a, b, seed)
    assert -1 <= found.low <= found.high <= 1 and found == paired_difference(a, b, seed)
    assert found.low - 1 / len(a) <= found.difference <= found.high + 1 / len(a)
    swapped = paired_difference(b, a, seed)
    assert swapped.difference == -found.difference
    if a == b:
        assert (found.low, found.difference, found.high) == (0, 0, 0)


def test_answers_have_to_be_paired() -> None:
    for a, b in (([True], [True, False]), ([], [])):
        with pytest.raises(ValueError, match="paired answers"):
            paired_difference(a, b)
