"""The rate of pure decoding, from the times at which tokens arrived."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Steady:
    """Decoding while no request waits for its first token.

    Attributes:
        tokens_per_s: of all requests together.
        seconds: how long such times lasted in all.
        tokens: how many arrived in them.
    """

    tokens_per_s: float
    seconds: float
    tokens: int


def steady_decode(
    starts: Sequence[float], ttfts: Sequence[float], itls: Sequence[Sequence[float]], batch: int
) -> Steady | None:
    """Tokens per second over the times in which exactly `batch` requests were decoding and none was in prefill.

    Prefill of others slows decoding, so that throughput and time per output token mix both; this does not.

    Args:
        starts: when each request was sent, in seconds on one clock.
        ttfts: seconds from there to the first token.
        itls: seconds between its tokens.
        batch: number of requests at once.

    Returns:
        None if there was no such time, as when the KV pool is too small for so many requests.
    """
    arrivals = [list(accumulate(gaps, initial=s + t)) for s, t, gaps in zip(starts, ttfts, itls, strict=True)]
    changes = sorted(
        [(s, 1, 0) for s in starts]
        + [(a[0], -1, 1) for a in arrivals]  # prefill ends, decoding begins
        + [(a[-1], 0, -1) for a in arrivals]
    )
    times = sorted(t for a in arrivals for t in a)
    seconds, tokens = 0.0, 0
    waiting = decoding = 0
    for (now, w, d), (then, _, _) in zip(changes, [*changes[1:], changes[-1]], strict=True):
        waiting, decoding = waiting + w, decoding + d
        if waiting == 0 and decoding == batch and then > now:
            seconds += then - now
            tokens += bisect_right(times, then) - bisect_right(times, now)
    return Steady(tokens / seconds, seconds, tokens) if tokens >= batch else None
