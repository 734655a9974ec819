"""Paired differences against exact and direct computation."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lostattn.serving.stats import holm, mcnemar, paired_difference, share, sign_test, spread


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


def brute_mcnemar(a: list[bool], b: list[bool]) -> float:
    """Over all ways in which the answers that changed sides could have changed, at least as lopsided."""
    changed = [int(y) - int(x) for x, y in zip(a, b, strict=True) if x != y]
    seen = abs(sum(changed))
    ways = [abs(sum(signs)) >= seen for signs in itertools.product((-1, 1), repeat=len(changed))]
    return sum(ways) / len(ways)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_mcnemar_is_exact(pairs: list[tuple[bool, bool]]) -> None:
    a, b = ([pair[i] for pair in pairs] for i in range(2))
    assert mcnemar(a, b) == pytest.approx(brute_mcnemar(a, b))
    assert mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(a, b, list(range(len(a)))) == mcnemar(a, b)


def test_mcnemar_with_many_answers() -> None:
    assert 0 < mcnemar([True] * 4000 + [False] * 4000, [False] * 4000 + [True] * 3600 + [False] * 400) < 1e-4
    assert sign_test([]) == sign_test([0.0, 0]) == 1.0


def test_clusters_are_drawn_together() -> None:
    """Ten questions about each picture change together: the interval is that of the pictures, about sqrt(10) wider."""
    draw = random.Random(1)
    per_picture = [draw.random() < 0.2 for _ in range(40)]
    a = [True] * 400
    b = [not lost for lost in per_picture for _ in range(10)]
    pictures = [i // 10 for i in range(400)]
    alone, together = paired_difference(a, b), paired_difference(a, b, clusters=pictures)
    small = paired_difference([True] * 40, [not lost for lost in per_picture])
    assert together.difference == alone.difference and together.n == 400
    assert (together.low, together.high) == pytest.approx((small.low, small.high), abs=0.03)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert mcnemar(a, b, pictures) == mcnemar([True] * 40, [not lost for lost in per_picture]) > mcnemar(a, b)
    with pytest.raises(ValueError, match="paired answers"):
        paired_difference(a, b, clusters=[1])


def test_uneven_clusters_against_all_resamples() -> None:
    a, b, pictures = [True] * 4, [False, False, False, True], ["x", "x", "x", "y"]
    found = paired_difference(a, b, clusters=pictures)
    assert (found.difference, found.low, found.high) == (-0.75, -1.0, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm(values: list[float]) -> None:
    found = holm(values)
    assert all(v <= f <= min(1, v * len(values)) + 1e-12 for v, f in zip(values, found, strict=True))
    order = sorted(range(len(values)), key=lambda i: values[i])
    assert [found[i] for i in order] == sorted(found)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


def test_spread() -> None:
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert (found.median, found.low, found.high, found.n) == (2.5, 1.0, 10.0, 4)
