"""Statistics of paired answers and of repeated measurements."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, nextafter
from statistics import median

import torch

RESAMPLES = 10_000
MARGIN = 0.01  # a loss that is called none: 1 point
FEW = 10  # clusters that are taken to change as wholes, beside those that are seen to change
_CHUNK = 2**22  # numbers drawn at a time


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of b minus accuracy of a on the same questions, with a 95 % bootstrap interval (shares, not percent)."""

    difference: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Equivalence:
    """Whether two accuracies are the same but for a margin (shares, not percent).

    Attributes:
        p: of the two one-sided tests, the larger; p_loss: of the one against a loss of the margin or more.
        low, high: 90 % interval of the difference; it lies inside the margin where p is below 0.05.
        effective_n: questions that weigh as much as these, were they drawn one by one.
    """

    margin: float
    p: float
    p_loss: float
    low: float
    high: float
    inside: bool
    effective_n: float


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
    results = []
    for start in range(0, RESAMPLES, rows):
        size = (min(rows, RESAMPLES - start), len(place))
        picks = torch.randint(len(place), size, generator=generator)
        results.append(sums[picks].sum(1) / sizes[picks].sum(1))
    return torch.cat(results)


def sign_test(differences: Iterable[float]) -> float:
    """Exact two-sided sign test; zeros are left out. Returns p: 1 where nothing differs."""
    from scipy.stats import binomtest

    values = list(differences)
    up, down = sum(d > 0 for d in values), sum(d < 0 for d in values)
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def mcnemar(a: Sequence[bool], b: Sequence[bool], clusters: Sequence[Hashable] | None = None) -> float:
    """Exact test of McNemar (1947) for paired right and wrong answers: the sign test of those that changed sides.

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
    """p values adjusted for being several, by the step-down method of Holm (1979), in the order given."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted, least = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = least
    return adjusted


def design_effect(a: Sequence[bool], b: Sequence[bool], clusters: Sequence[Hashable] | None) -> float:
    """How many times larger the variance of the difference is than it were with independent questions; at least 1.

    The cluster-robust variance over the plain one (Kish 1965). With few changes that says little, so `FEW` clusters are added
    that change as wholes, the worst case: the mean size of a question's cluster.
    """
    delta = _differences(a, b, clusters)
    if clusters is None or len(set(clusters)) == len(delta):
        return 1.0
    mean, changed = sum(delta) / len(delta), set()
    sums: dict[Hashable, list[float]] = {}
    for label, d in zip(clusters, delta, strict=True):
        result = sums.setdefault(label, [0.0, 0])
        result[0] += d - mean
        result[1] += 1
        if d:
            changed.add(label)
    worst = sum(size**2 for _, size in sums.values()) / len(delta)
    plain = sum((d - mean) ** 2 for d in delta)
    if len(sums) < 2 or not plain:
        return worst
    robust = sum(total**2 for total, _ in sums.values()) * len(sums) / (len(sums) - 1)
    return (len(changed) * max(1.0, robust / plain) + FEW * worst) / (len(changed) + FEW)


def equivalence(
    a: Sequence[bool], b: Sequence[bool], margin: float = MARGIN, clusters: Sequence[Hashable] | None = None
) -> Equivalence:
    """Two one-sided tests (Schuirmann 1987) that the accuracies differ by less than a margin.

    Each is the score test for paired shares (Tango 1998), which takes the variance at the margin and so does not call two
    models equal because no answer changed. Its p is never below the exact binomial one of changes in one direction only; with
    no change that is (1 - margin)^n, about the rule of three. Clusters shrink the counts by the design effect (Rao and Scott
    1992). Simulated size at a true loss of 1 point and a level of 5 %, for n = 200 to 9000 and 1 to 10 % of the answers
    changed: at most 5.2 % (a Wald test: 5 to 24 %); with 100 to 1500 clusters of 3 to 10 questions that change as wholes, in
    part or one by one: at most 5.3 % (without the design effect: up to 36 %).

    Raises:
        ValueError: other lengths, no questions, or a margin outside of (0, 1).
    """
    delta = _differences(a, b, clusters)
    if not 0 < margin < 1:
        raise ValueError(f"the margin is a share between 0 and 1, got {margin}")
    effect = design_effect(a, b, clusters)
    n, lost, won = (x / effect for x in (len(delta), delta.count(-1), delta.count(1)))
    p_loss, p_gain = _p_above(n, lost, won, -margin), _p_above(n, won, lost, -margin)
    low, high = _lower_end(n, lost, won), -_lower_end(n, won, lost)
    p = max(p_loss, p_gain)
    return Equivalence(margin, p, p_loss, low, high, p < 0.05, n)


def _p_above(n: float, lost: float, won: float, limit: float) -> float:
    """One-sided p of "the difference is at most `limit`"; counts may be broken numbers."""
    from scipy.special import betainc, ndtr

    # share of lost answers that is likeliest where the difference is the limit: root of Tango's equation
    half, rest = (2 * n - won + lost) * limit - won - lost, -lost * limit * (1 - limit)
    share_lost = (max(half**2 - 8 * n * rest, 0.0) ** 0.5 - half) / (4 * n)
    variance = max(n * (2 * share_lost + limit * (1 - limit)), 1e-300)
    p = float(ndtr((n * limit - won + lost) / variance**0.5))
    net = won - lost
    if limit < 0:  # P(at most -net answers lost), with all changes losses
        floor = 0.0 if net > 0 else float(betainc(n + net, 1 - net, 1 + limit)) if net > -n else 1.0
    else:  # P(at least net answers won), with all changes gains
        floor = float(betainc(net, n - net + 1, limit)) if limit and net > 0 else 0.0
    return max(p, floor)


def _lower_end(n: float, lost: float, won: float, level: float = 0.05) -> float:
    """The smallest difference that the one-sided test does not refuse."""
    from scipy.optimize import brentq

    value, least = (won - lost) / n, nextafter(-1.0, 0.0)
    return float(brentq(lambda x: _p_above(n, lost, won, x) - level, least, value)) if value > least else -1.0


def power_of(n: int, discordant: float, difference: float, alpha: float = 0.05, design_effect: float = 1.0) -> float:
    """Probability that the exact two-sided McNemar test sees a true difference: p at most alpha.

    Args:
        n: questions.
        discordant: share of questions that one model gets right and the other wrong; the difference's size at least.
        design_effect: how many clustered questions weigh as much as one.
    """
    import numpy as np
    from scipy.stats import binom

    n, size = round(n / design_effect), abs(difference)
    discordant = max(discordant, size)
    if not n or not discordant:
        return 0.0
    spread_of = 9 * (n * discordant * (1 - discordant)) ** 0.5 + 9  # what lies outside is below 1e-15
    changed = np.arange(max(0, int(n * discordant - spread_of)), min(n, int(n * discordant + spread_of)) + 1)
    few = binom.ppf(alpha / 2, changed, 0.5)
    few -= binom.cdf(few, changed, 0.5) > alpha / 2
    down = (1 + size / discordant) / 2
    seen = binom.cdf(few, changed, down) + binom.sf(changed - few - 1, changed, down)
    return float(binom.pmf(changed, n, discordant) @ np.where(few < 0, 0.0, seen))


def smallest_difference(
    n: int, discordant: float, power: float = 0.8, alpha: float = 0.05, design_effect: float = 1.0
) -> float | None:
    """The smallest true difference (a share) that the exact McNemar test sees with this power; None if it sees none.

    The share of changed answers stays as it is, unless the difference itself is larger.
    """
    low, high = 0.0, 1.0
    if power_of(n, discordant, high, alpha, design_effect) < power:
        return None
    while high - low > 1e-6:
        middle = (low + high) / 2
        if power_of(n, discordant, middle, alpha, design_effect) < power:
            low = middle
        else:
            high = middle
    return high


def questions_needed(
    difference: float, discordant: float, power: float = 0.8, alpha: float = 0.05, design_effect: float = 1.0
) -> int:
    """How many questions the exact McNemar test needs to see a difference with this power.

    Raises:
        ValueError: a difference of 0.
    """
    if not difference:
        raise ValueError("no number of questions shows a difference of 0")
    low, high = 0, 8
    while power_of(high, discordant, difference, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(middle, discordant, difference, alpha) < power:
            low = middle
        else:
            high = middle
    return ceil(high * design_effect)


def verdict(difference: float, p: float, found: Equivalence, alpha: float = 0.05) -> str:
    """What a comparison shows, in words.

    Args:
        p: of the McNemar test, adjusted where there are several.
    """
    margin = f"{100 * found.margin:g} point{'' if found.margin == 0.01 else 's'}"
    if p <= alpha and difference < 0:
        return f"loses accuracy, less than {margin}" if found.p_loss < alpha else "loses accuracy"
    if p <= alpha and difference > 0:
        return "gains accuracy"
    if found.p_loss < alpha:
        return f"no loss larger than {margin}"
    loss = ceil(-1000 * found.low - 1e-9) / 10  # never rounded down to what was not shown
    return f"no difference shown (a loss up to {loss:.1f} points is possible)"


def spread(values: Sequence[float]) -> Spread:
    """Median and range; there has to be a value."""
    return Spread(median(values), min(values), max(values), len(values))


def share(values: Sequence[bool]) -> float:
    """Share of true values; there has to be one."""
    return sum(values) / len(values)
