"""The loops of `compiled_rows`, compiled by numba: to be imported only where numba is installed."""

# numba takes no annotations; D (channels) is a constant in the code that calls these
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload


@lru_cache(maxsize=4)
def merge_kernel(D: int) -> Any:  # noqa: N803
    """Closed form of neighbouring rows: attention on text `o`, of which the share `share` (h, rows) counts, and the mean of
    the visual values so far. Rows without text (share 0) do not read `o`.

    `o` and `v` are flat: numbers of row r and head i begin at r o_row + i o_head. Head i of `o` is head numbers[i] of `out`
    (rows, H, D); heads begin[g] to begin[g + 1] are served by KV head kv[g] of `v`. `own` and `mass` are the weights of a
    row's visual value, 0 on text, and of all so far; `sums` (g, D), float64, is carried on. The mean of row r also goes to
    `means` (w, g, D) at keep[r], unless that is negative. `o`, `v`, `out` are float32, or bfloat16 as the bits uint16.
    """

    @njit(fastmath={"contract", "nsz", "arcp"}, nogil=True, cache=True)
    def run(
        o, o_row, o_head, share, v, v_row, v_head, own, mass, sums, begin, kv, numbers, keep, means, out, first, end
    ):
        mean, total = np.empty(D, np.float32), np.empty(D, np.float64)
        row, bits = np.empty(D, np.float32), np.empty(D, np.uint32)
        for g in range(first, end):
            total[:], mean[:] = sums[g], np.float32(0)
            for r in range(len(own)):
                if own[r] > 0:
                    weight, at = own[r], r * v_row + kv[g] * v_head
                    value = read(v[at : at + D], bits)
                    for d in range(D):
                        total[d] += weight * np.float64(value[d])
                if mass[r] > 0 and (own[r] > 0 or r == 0):
                    part = 1 / mass[r]
                    for d in range(D):
                        mean[d] = np.float32(total[d] * part)
                if keep[r] >= 0:
                    means[keep[r], g] = mean
                for i in range(begin[g], begin[g + 1]):
                    to, s = out[r, numbers[i]], share[i, r]
                    if s > 0:
                        at = r * o_row + i * o_head
                        text = read(o[at : at + D], bits)
                        for d in range(D):
                            row[d] = mean[d] + s * (text[d] - mean[d])
                        write(row, to)
                    else:
                        write(mean, to)
            sums[g] = total

    return run


def read(x, bits):
    """Numbers x as float32, in the room of `bits` uint32 if they are bfloat16."""


def write(x, into):
    """Float32 numbers x into `into`, rounded to even if that is bfloat16."""


@overload(read, inline="always")
def _read(x, bits):
    def single(x, bits):
        return x

    def half(x, bits):
        for d in range(len(bits)):
            bits[d] = np.uint32(x[d]) << np.uint32(16)
        return bits.view(np.float32)

    return half if x.dtype == types.uint16 else single


@overload(write, inline="always")
def _write(x, into):
    def single(x, into):
        for d in range(len(x)):
            into[d] = x[d]

    def half(x, into):
        bits = x.view(np.uint32)
        for d in range(len(x)):
            even = np.uint32(0x7FFF) + ((bits[d] >> np.uint32(16)) & np.uint32(1))
            into[d] = np.uint16((bits[d] + even) >> np.uint32(16))

    return half if into.dtype == types.uint16 else single
