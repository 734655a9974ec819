"""The loops of `compiled_query_attention`, compiled by numba: to be imported only where numba is installed."""

# numba takes no annotations: sizes D (channels) and T (tokens of a block) are constants in the code that calls these
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

# NaN and infinity stay what they are: halves of summaries may read as such in hidden slots
FAST = {"reassoc", "contract", "nsz", "arcp"}
HIDDEN, SMALLEST = np.float32(-1e30), np.float32(-87)
ZERO, HALF, ONE, LOG2E = np.float32(0), np.float32(0.5), np.float32(1), np.float32(1.4426950409)
# 2^x = 1 + c1 x + ... + c5 x^5 on [-0.5, 0.5], to 1e-7 of the result: least squares, weighted until the errors are level
C1, C2, C3, C4, C5 = (np.float32(c) for c in (0.69314698, 0.24022243, 0.05550733, 0.00967143, 0.00132645))


@lru_cache(maxsize=16)
def attention_kernel(D: int, T: int, half: bool) -> Any:  # noqa: N803
    """Softmax over text keys and the summary, which is one more key, and the mean of the values under it, block by block.

    The cache is float32, or bfloat16 read as uint16. Kernels have numbers alone as constants: numba then keeps their code
    between processes.
    """

    @njit(fastmath=FAST, nogil=True, cache=True)
    def run(q, cache, wanted, blocks, hidden, log_mass, mean, out, first, end):
        heads, group = wanted.shape
        wide, s = np.empty((2, D * T), dtype=np.uint32), np.empty((group, T), dtype=np.float32)
        power, top, total = np.empty(T, dtype=np.int32), np.empty(group, dtype=np.float32), np.empty(group, np.float32)
        for pair in range(first, end):
            n, head = pair // heads, pair % heads
            if not wanted[head].any():
                continue
            for row in range(group):
                top[row], total[row] = log_mass[n, head, row], ONE
                for d in range(D):
                    out[n, head, row, d] = mean[n, head, d]
            for m in range(blocks.shape[1]):
                plane, hide = cache[blocks[n, m], head], hidden[n, m]  # keys (D, T), values (T, D)
                if half:
                    _widen(plane, wide[0], wide[1], D * T)
                    k, v = wide[0].view(np.float32), wide[1].view(np.float32)
                else:
                    k, v = plane[: D * T], plane[D * T :]
                for row in range(group):
                    if wanted[head, row]:
                        _score(q[n, head, row], k, hide, s[row], D, T)
                        _weigh(s[row], power, row, top, total, out[n, head, row], D, T)
                for t in range(0, T, 8):
                    seen = 0
                    for x in range(t, t + 8):
                        seen += not hide[x]
                    for row in range(group):
                        if seen == 8 and wanted[head, row]:
                            _add_eight(s[row], v, t, out[n, head, row], D)
                        elif seen and wanted[head, row]:
                            _add_some(s[row], v, hide, t, out[n, head, row], D)
            for row in range(group):
                for d in range(D):
                    out[n, head, row, d] /= total[row]

    return run


@njit(inline="always")
def _widen(plane, k, v, n):
    """Keys and values in bfloat16 as the bits of float32."""
    for x in range(n):
        k[x] = np.uint32(plane[x]) << np.uint32(16)
        v[x] = np.uint32(plane[n + x]) << np.uint32(16)


@njit(inline="always")
def _score(q, k, hide, s, D, T):  # noqa: N803
    """Scores of a block's keys, eight channels at once."""
    for t in range(T):
        s[t] = ZERO
    for d in range(0, D, 8):
        a, b, c, e, f, g, h, i = q[d], q[d + 1], q[d + 2], q[d + 3], q[d + 4], q[d + 5], q[d + 6], q[d + 7]
        for t in range(T):
            j = d * T + t
            s[t] += (
                a * k[j] + b * k[j + T] + c * k[j + 2 * T] + e * k[j + 3 * T]
                + f * k[j + 4 * T] + g * k[j + 5 * T] + h * k[j + 6 * T] + i * k[j + 7 * T]
            )  # fmt: skip
    for t in range(T):
        if hide[t]:
            s[t] = HIDDEN


@njit(inline="always")
def _weigh(s, power, row, top, total, out, D, T):  # noqa: N803
    """Scores to weights exp(score - top); what was summed under a smaller top shrinks."""
    largest = top[row]
    for t in range(T):
        largest = max(largest, s[t])
    if largest > top[row]:
        shrink = np.exp(top[row] - largest)
        total[row] *= shrink
        for d in range(D):
            out[d] *= shrink
        top[row] = largest
    for t in range(T):  # exp as a power of two, which vectors can compute
        x = max(s[t] - largest, SMALLEST) * LOG2E
        whole = np.floor(x + HALF)
        x -= whole
        power[t] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        s[t] = ONE + x * (C1 + x * (C2 + x * (C3 + x * (C4 + x * C5))))
    factor, added = power.view(np.float32), ZERO
    for t in range(T):
        s[t] *= factor[t]
        added += s[t]
    total[row] += added


@njit(inline="always")
def _add_eight(w, v, t, out, D):  # noqa: N803
    """Eight text values from row t."""
    a, b, c, e, f, g, h, i = w[t], w[t + 1], w[t + 2], w[t + 3], w[t + 4], w[t + 5], w[t + 6], w[t + 7]
    for d in range(D):
        j = t * D + d
        out[d] += (
            a * v[j] + b * v[j + D] + c * v[j + 2 * D] + e * v[j + 3 * D]
            + f * v[j + 4 * D] + g * v[j + 5 * D] + h * v[j + 6 * D] + i * v[j + 7 * D]
        )  # fmt: skip


@njit(inline="always")
def _add_some(w, v, hide, t, out, D):  # noqa: N803
    """Those of eight values that are text: hidden ones may be anything, NaN too."""
    for x in range(t, t + 8):
        if not hide[x]:
            for d in range(D):
                out[d] += w[x] * v[x * D + d]
