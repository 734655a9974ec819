"""Paired differences against exact and direct computation."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lostattn.serving.stats import (
    Equivalence,
    _p_above,
    design_effect,
    equivalence,
    holm,
    mcnemar,
    paired_difference,
    power_of,
    questions_needed,
    share,
    sign_test,
    smallest_difference,
    spread,
    verdict,
)
from scipy import stats as scipy_stats


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
    theirs = scipy_stats.bootstrap((delta,), np.mean, method="percentile").confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


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


def test_holm_against_its_definition() -> None:
    """What Holm refuses at a level is what his steps refuse there."""
    values, level = [0.001, 0.04, 0.0124, 0.03, 0.8], 0.05
    refused = 0
    for value in sorted(values):
        if value > level / (len(values) - refused):
            break
        refused += 1
    assert sum(p <= level for p in holm(values)) == refused == 2


def paired(n: int, lost: int, won: int) -> tuple[list[bool], list[bool]]:
    """Right answers of two models of which the second loses and wins so many."""
    same = [True] * (n - lost - won)
    return [True] * lost + [False] * won + same, [False] * lost + [True] * won + same


def brute_power(n: int, discordant: float, difference: float, alpha: float) -> float:
    """Over all numbers of lost and won answers."""
    down, up = (discordant + difference) / 2, (discordant - difference) / 2
    table = [
        ((lost, won, n - lost - won), scipy_stats.binomtest(lost, lost + won).pvalue)
        for lost in range(n + 1)
        for won in range(n + 1 - lost)
        if lost + won
    ]
    chance = scipy_stats.multinomial(n, [down, up, 1 - down - up])
    return float(sum(chance.pmf(counts) for counts, p in table if p <= alpha))


@pytest.mark.parametrize(("discordant", "difference"), [(0.3, 0.2), (0.25, 0.25), (0.4, 0.05), (0.9, 0.6)])
def test_power_is_exact(discordant: float, difference: float) -> None:
    for alpha in (0.05, 0.2):
        found = power_of(30, discordant, difference, alpha)
        assert found == pytest.approx(brute_power(30, discordant, difference, alpha), abs=1e-9)
        assert found == power_of(30, discordant, -difference, alpha) == power_of(90, discordant, difference, alpha, 3.0)


def test_power_against_simulation() -> None:
    n, discordant, difference, draws = 2000, 0.06, 0.015, 4000
    counts = np.random.default_rng(0).multinomial(n, [0.0375, 0.0225, 0.94], draws)
    p = [scipy_stats.binomtest(int(lost), int(lost + won)).pvalue for lost, won, _ in counts]
    assert power_of(n, discordant, difference) == pytest.approx(np.mean(np.array(p) <= 0.05), abs=0.03)


@pytest.mark.parametrize(("discordant", "difference"), [(0.02, 0.01), (0.05, 0.01), (0.1, 0.01), (0.1, 0.03)])
def test_questions_against_the_normal_approximation(discordant: float, difference: float) -> None:
    """Connor (1987, after Miettinen 1968) is for the test without exactness, which needs up to a tenth less."""
    z = scipy_stats.norm.ppf
    root = z(0.975) * discordant**0.5 + z(0.8) * (discordant - difference**2) ** 0.5
    found = questions_needed(difference, discordant)
    assert 1.0 <= found / (root / difference) ** 2 <= 1.12
    assert power_of(found, discordant, difference) >= 0.8 > power_of(found - 1, discordant, difference)
    assert smallest_difference(found, discordant) == pytest.approx(difference, rel=2e-3)
    assert questions_needed(difference, discordant, design_effect=2.0) == 2 * found


def test_the_smallest_difference() -> None:
    assert smallest_difference(5, 0.5) is None and smallest_difference(6, 0.0) is not None
    one_way = smallest_difference(100, 0.0)
    assert one_way is not None
    assert 1 - scipy_stats.binom.cdf(5, 100, one_way) == pytest.approx(0.8, abs=1e-3), "six changes are the least seen"
    few, many = smallest_difference(500, 0.05), smallest_difference(500, 0.05, design_effect=2.0)
    assert few is not None and many is not None and many > few
    with pytest.raises(ValueError, match="difference of 0"):
        questions_needed(0.0, 0.1)


@pytest.mark.parametrize("n", [200, 275, 500, 3000, 9000])
@pytest.mark.parametrize("discordant", [0.01, 0.02, 0.05, 0.1])
def test_equivalence_has_its_size(n: int, discordant: float) -> None:
    """A true loss of just the margin is called none in 5 of 100 runs at most (0.6 more, for the simulation)."""
    down, up = (discordant + 0.01) / 2, (discordant - 0.01) / 2
    drawn = np.random.default_rng(n).multinomial(n, [down, up, 1 - down - up], 20_000)
    kinds, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    claimed = [_p_above(n, int(lost), int(won), -0.01) < 0.05 for lost, won in kinds]
    assert counts[claimed].sum() / 20_000 <= 0.056
    lost, won = map(int, kinds[0])
    assert equivalence(*paired(n, lost, won)).p_loss == _p_above(n, lost, won, -0.01)


def test_nothing_changed_is_no_proof() -> None:
    for n in (1, 100, 298, 299, 1000):
        found = equivalence(*paired(n, 0, 0))
        assert found.p >= 0.99**n - 1e-12 and found.inside == (n >= 299) and found.low < 0 < found.high
        assert found.low == pytest.approx(-found.high) and found.low <= 0.05 ** (1 / n) - 1 + 1e-9
    at_most = scipy_stats.binomtest(0, 500).proportion_ci(0.90).high
    assert equivalence(*paired(500, 0, 0)).high == pytest.approx(at_most), "Clopper and Pearson's bound"


def test_equivalence_is_its_interval() -> None:
    for lost, won in ((0, 0), (5, 0), (5, 4), (40, 40), (60, 30), (3, 90)):
        a, b = paired(2000, lost, won)
        found, other = equivalence(a, b, 0.02), equivalence(b, a, 0.02)
        assert found.inside == (found.low > -0.02 and found.high < 0.02) == (found.p < 0.05)
        assert found.low < (won - lost) / 2000 < found.high
        assert (other.low, other.high) == pytest.approx((-found.high, -found.low), abs=1e-6)
    wide = equivalence(*paired(2000, 100, 80))  # with many changes it is Wald's
    half = 1.645 * (180 / 2000 - 0.01**2) ** 0.5 / 2000**0.5
    assert (wide.low, wide.high) == pytest.approx((-0.01 - half, -0.01 + half), abs=2e-4)
    with pytest.raises(ValueError, match="margin"):
        equivalence([True], [True], 0.0)


def test_clusters_weigh_less() -> None:
    a, b = paired(1200, 60, 60)
    together = [i // 6 for i in range(1200)]
    assert design_effect(a, b, None) == design_effect(a, b, list(range(1200))) == 1.0
    assert design_effect(a, b, together) == pytest.approx(6.0, rel=0.02)
    assert equivalence(a, b, clusters=together).effective_n == pytest.approx(200, rel=0.02)
    assert design_effect(*paired(4, 0, 0), ["x"] * 4) == 4.0
    assert design_effect(*paired(1200, 0, 0), together) == 6.0, "nothing changed: the worst case"
    one_by_one = [i % 200 for i in range(1200)]
    assert 1.3 < design_effect(a, b, one_by_one) < design_effect(*paired(1200, 3, 0), one_by_one) < 6.0


@pytest.mark.parametrize(("count", "size", "discordant"), [(500, 10, 0.01), (400, 3, 0.02), (100, 6, 0.1)])
def test_equivalence_has_its_size_with_clusters(count: int, size: int, discordant: float) -> None:
    """A third of the clusters change as wholes."""
    draw, claims, runs = np.random.default_rng(0), 0, 600
    labels = [i // size for i in range(count * size)]
    for _ in range(runs):
        u = draw.random((count, size))
        whole = draw.random(count) < 0.3
        u[whole] = u[whole, :1]
        b, a = (u >= (discordant + 0.01) / 2).ravel(), ((u < (discordant + 0.01) / 2) | (u >= discordant)).ravel()
        n = len(labels) / design_effect(a.tolist(), b.tolist(), labels)
        lost, won = ((a & ~b).mean() * n, (b & ~a).mean() * n)
        claims += _p_above(n, float(lost), float(won), -0.01) < 0.05
    assert claims / runs <= 0.05 + 2.5 * (0.05 * 0.95 / runs) ** 0.5


def test_words() -> None:
    def said(n: int, lost: int, won: int, margin: float = 0.01) -> str:
        a, b = paired(n, lost, won)
        return verdict((won - lost) / n, mcnemar(a, b), equivalence(a, b, margin))

    assert said(500, 60, 10) == "loses accuracy" and said(500, 10, 60) == "gains accuracy"
    assert said(9000, 60, 20) == "loses accuracy, less than 1 point"
    assert said(1000, 10, 10) == "no loss larger than 1 point" and said(400, 3, 3, 0.02).endswith("than 2 points")
    assert said(200, 0, 0) == "no difference shown (a loss up to 1.5 points is possible)"
    close = Equivalence(0.01, 0.06, 0.06, -0.01001, 0.0, False, 100.0)
    assert verdict(-0.001, 0.5, close) == "no difference shown (a loss up to 1.1 points is possible)"


def test_spread() -> None:
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert (found.median, found.low, found.high, found.n) == (2.5, 1.0, 10.0, 4)
