"""The loops of `numba_decode_attention`, compiled by numba: to be imported only where numba is installed."""

# numba takes no annotations: sizes D (channels) and T (tokens of a block) are constants in the code that calls these
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from .numba_vector import MOST, add_product

# NaN and infinity stay what they are: halves of summaries may read as such in hidden slots
FAST = {"reassoc", "contract", "nsz", "arcp"}
HIDDEN, SMALLEST = np.float32(-1e30), np.float32(-87)
ZERO, HALF, ONE, LOG2E = np.float32(0), np.float32(0.5), np.float32(1), np.float32(1.4426950409)
# 2^x = 1 + c1 x + ... + c5 x^5 on [-0.5, 0.5], to 1e-7 of the result: least squares, weighted until the errors are level
C1, C2, C3, C4, C5 = (np.float32(c) for c in (0.69314698, 0.24022243, 0.05550733, 0.00967143, 0.00132645))


@lru_cache(maxsize=16)
def attention_kernel(D: int, T: int) -> Any:  # noqa: N803
    """Attention of single rows, block by block, a few query heads of a KV head at a time.

    Of the `rows` query heads in `order` the first `plain` see every slot below `lengths`; the others see those that are not
    `hidden`, and the summary as one more key. The cache (blocks, Hkv, 2 D T) is float32, or bfloat16 read as uint16.
    Kernels have numbers alone as constants: numba then keeps their code between processes.
    """

    @njit(fastmath=FAST, nogil=True, cache=True)
    def run(q, scale, cache, order, rows, plain, blocks, hidden, lengths, log_mass, level, mean, out, first, end):
        (heads, group), scale = order.shape, np.float32(scale)
        own, sums, s = np.empty(group * D, np.float32), np.empty(group * D, np.float32), np.empty(group * T, np.float32)
        top, total, eight = np.empty(group, np.float32), np.empty(group, np.float32), np.empty(8, np.float32)
        power, last = np.empty(T, np.int32), blocks.shape[1] - 1
        for pair in range(first, end):
            n, head = pair // heads, pair % heads
            count, free = rows[head], plain[head]
            for r in range(count):
                row = order[head, r]
                top[r], total[r] = (HIDDEN, ZERO) if r < free else (log_mass[n] + level[head, row], ONE)
                asked, to, at = q[n, head, row], own[r * D : (r + 1) * D], sums[r * D : (r + 1) * D]
                for d in range(D):
                    to[d] = asked[d] * scale
                if r < free:
                    at[:] = ZERO
                else:
                    start = mean[n, head]
                    for d in range(D):
                        at[d] = start[d]
            for m in range(last + 1):
                hide, seen, below = hidden[n, m], 0, min(max(lengths[n] - m * T, 0), T)
                for t in range(T):
                    seen += not hide[t]
                free, busy = (free if below else 0), (count if seen else free)
                if not busy:
                    continue
                after, then = (pair, m + 1) if m < last else (min(pair + 1, end - 1), 0)
                plane, ahead = cache[blocks[n, m], head], cache[blocks[after // heads, then], after % heads]
                _score(own, plane, ahead, s, busy, D, T)
                for r in range(busy):
                    if r < free:
                        s[r * T + below : (r + 1) * T] = HIDDEN
                    elif seen < T:
                        _hide(s, r * T, hide, T)
                    _weigh(s, power, eight, r, top, total, sums, D, T)
                if seen == T and (below == T or not free):
                    _add(s, plane, ahead, sums, 0, busy, 0, T, D, T)
                else:
                    _add(s, plane, ahead, sums, 0, free, 0, below, D, T)
                    _add_seen(s, plane, ahead, sums, free, busy, hide, D, T)
            for r in range(count):
                share, at, to = ONE / total[r], sums[r * D : (r + 1) * D], out[n, head, order[head, r]]
                for d in range(D):
                    to[d] = at[d] * share

    return run


@njit(inline="always")
def _score(q, plane, ahead, s, rows, D, T):  # noqa: N803
    """Scores of a block's keys, which stand as columns (D, T) in front of the values."""
    s[: rows * T] = ZERO
    for r in range(0, rows, MOST):
        add_product(rows - r, D, T, s, r * T, q, r * D, D, plane, ahead, 0, T)


@njit(inline="always")
def _hide(s, at, hide, T):  # noqa: N803
    for t in range(T):
        if hide[t]:
            s[at + t] = HIDDEN


@njit(inline="always")
def _weigh(s, power, eight, row, top, total, sums, D, T):  # noqa: N803
    """Scores to weights exp(score - top); what was summed under a smaller top shrinks."""
    first = row * T
    for x in range(8):
        eight[x] = top[row]
    for t in range(first, first + T, 8):
        for x in range(8):
            eight[x] = max(eight[x], s[t + x])
    largest = eight[0]
    for x in range(1, 8):
        largest = max(largest, eight[x])
    if largest > top[row]:
        shrink = np.exp(top[row] - largest)
        total[row] *= shrink
        for d in range(row * D, row * D + D):
            sums[d] *= shrink
        top[row] = largest
    for t in range(T):  # exp as a power of two, which vectors can compute
        x = max(s[first + t] - largest, SMALLEST) * LOG2E
        whole = np.floor(x + HALF)
        x -= whole
        power[t] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        s[first + t] = ONE + x * (C1 + x * (C2 + x * (C3 + x * (C4 + x * C5))))
    factor, added = power.view(np.float32), ZERO
    for t in range(T):
        s[first + t] *= factor[t]
        added += s[first + t]
    total[row] += added


@njit(inline="always")
def _add_seen(w, plane, ahead, sums, first, rows, hide, D, T):  # noqa: N803
    """Values that are not hidden, run by run: hidden ones may be anything, NaN too."""
    t = 0
    while t < T and first < rows:
        end = t
        while end < T and not hide[end]:
            end += 1
        _add(w, plane, ahead, sums, first, rows, t, end, D, T)
        t = end + 1


@njit(inline="always")
def _add(w, plane, ahead, sums, first, rows, t, end, D, T):  # noqa: N803
    """Weighted values of slots t..end-1."""
    if end <= t:
        return
    for r in range(first, rows, MOST):
        add_product(rows - r, end - t, D, sums, r * D, w, r * T + t, T, plane, ahead, D * T + t * D, D)
