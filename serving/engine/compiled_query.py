"""The same as `query_attention` on CPUs, where the cache lies: compiled by numba, which vLLM's CPU build brings.

A block is read once for all query heads of its KV head and nothing is gathered, which the torch form spends most of its time
on. Sizes are constants of the compiled code: vectors of unknown length cost five times as much.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from .pages import Pages
from .query_attention import query_attention
from .steps import Queries

UNROLLED = 8  # channels or tokens at once: sums stay in registers
CACHE_DTYPES = (torch.float32, torch.bfloat16)
FEW = 64  # pairs of KV head and block that are not worth a second thread
HIDDEN = -1e30
# NaN and infinity stay what they are: halves of summaries may read as such in hidden slots
FAST = {"reassoc", "contract", "nsz", "arcp"}


@cache
def prepare(D: int, size: int, G: int, dtype: torch.dtype) -> None:  # noqa: N803
    """Compile before the first request; the code is kept on disk, so this takes seconds once."""
    shape = torch.zeros(1, 1, size, 2 * D, dtype=dtype)
    blocks, hidden = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, size, dtype=torch.bool)
    queries = Queries(blocks[0], blocks, hidden, (blocks[0], blocks[0]), ())
    q, mean, mass = (torch.zeros(1, 1, *rest, dtype=torch.float32) for rest in ((G, D), (D,), (1,)))
    compiled_query_attention(queries, q, Pages(shape, True), 1.0, mass, mean)


def fits(pages: Pages) -> bool:
    """True if the compiled form reads this cache."""
    return (
        pages.columns
        and pages.cache.device.type == "cpu"
        and pages.cache.dtype in CACHE_DTYPES
        and pages.head_size % UNROLLED == 0
        and pages.size % UNROLLED == 0
        and pages.cache[0, 0].is_contiguous()
    )


def compiled_query_attention(
    queries: Queries,
    q: torch.Tensor,
    pages: Pages,
    scale: float,
    log_mass: torch.Tensor,
    mean: torch.Tensor,
    groups: list[int] | None = None,
) -> torch.Tensor:
    """Arguments and result of `query_attention`, which serves caches that this form does not fit."""
    if not fits(pages):
        return query_attention(queries, q, pages, scale, log_mass, mean, groups)
    _answer_no_special_names()
    count, heads, group, channels = q.shape
    size, half = pages.size, pages.cache.dtype == torch.bfloat16
    planes = pages.cache.flatten(2)
    planes = planes.view(torch.uint16) if half else planes
    hidden = queries.hidden.view(count, -1, size)
    out = torch.empty(count, heads, group, channels, dtype=torch.float32)
    weights = torch.empty(count, heads, group, hidden.shape[1], size, dtype=torch.float32)
    cache, chosen = planes.numpy(), np.arange(heads) if groups is None else np.array(groups)
    where = cache, chosen, queries.blocks.numpy(), hidden.numpy(), weights.numpy()
    rows = (q.float() * scale).contiguous().numpy()
    mass = log_mass.expand(count, heads, group).contiguous().numpy()
    score, value = (make(channels, size, group, half) for make in (score_kernel, value_kernel))

    def run(first: int, end: int) -> None:
        score(rows, *where, first, end)
        value(*where, mass, mean.contiguous().numpy(), out.numpy(), first, end)

    _in_parallel(run, count * heads, hidden.shape[1])
    return out


def _in_parallel(run: Callable[[int, int], None], pairs: int, blocks: int) -> None:
    """Split pairs (request, KV head) over as many threads as torch has."""
    threads = min(torch.get_num_threads(), max(pairs * blocks // FEW, 1), pairs)
    cuts = [pairs * i // threads for i in range(threads + 1)]
    pending = [_pool().submit(run, a, b) for a, b in zip(cuts[1:], cuts[2:], strict=False)]
    run(cuts[0], cuts[1])
    wait(pending)
    for one in pending:
        one.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(torch.get_num_threads() - 1, 1), "lostattn", _spread, (_cores(),))


def _cores() -> set[int]:
    """The cores of this process; vLLM binds the main thread, which new threads take after, to one of them."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    own = os.sched_getaffinity(0)
    if len(own) > 1:
        return own
    bound = [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]
    return set().union(*(cores for cores in bound if len(cores) == 1))


def _spread(cores: set[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)


@cache
def _answer_no_special_names() -> None:
    """llvmlite's library object takes any attribute for a C function, `__dict__` too, which vLLM reads of everything loaded
    when a second engine starts in one process."""
    from llvmlite.binding import ffi

    kind = type(ffi.lib)
    plain = kind.__getattr__

    def answer(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return plain(self, name)

    kind.__getattr__ = answer


@lru_cache(maxsize=16)
def score_kernel(D: int, size: int, G: int, half: bool) -> Any:  # noqa: N803
    """Scores of text keys, for D channels, blocks of `size` tokens, G query heads a KV head, in float32 or bfloat16.

    Kernels have numbers alone as constants: numba then keeps their code between processes.
    """
    from numba import njit

    low, bits = np.float32(HIDDEN), np.uint32(16)

    @njit(fastmath=FAST, nogil=True, cache=True)
    def run(q, cache, heads, blocks, hidden, weights, first, end):  # type: ignore[no-untyped-def]
        wide = np.empty(D * size, dtype=np.uint32)
        for pair in range(first, end):
            n, head = pair // len(heads), pair % len(heads)
            for m in range(blocks.shape[1]):
                plane = cache[blocks[n, m], heads[head]]  # keys (D, size), values (size, D)
                if half:
                    for x in range(D * size):
                        wide[x] = np.uint32(plane[x]) << bits
                    k = wide.view(np.float32)
                else:
                    k = plane
                for row in range(G):
                    r, s = q[n, head, row], weights[n, head, row, m]
                    for t in range(size):
                        s[t] = np.float32(0)
                    for d in range(0, D, 8):
                        a, b, c, e = r[d], r[d + 1], r[d + 2], r[d + 3]
                        f, g, h, i = r[d + 4], r[d + 5], r[d + 6], r[d + 7]
                        for t in range(size):
                            j = d * size + t
                            s[t] += (
                                a * k[j] + b * k[j + size] + c * k[j + 2 * size] + e * k[j + 3 * size]
                                + f * k[j + 4 * size] + g * k[j + 5 * size] + h * k[j + 6 * size] + i * k[j + 7 * size]
                            )  # fmt: skip
                    for t in range(size):
                        if hidden[n, m, t]:
                            s[t] = low

    return run


@lru_cache(maxsize=16)
def value_kernel(D: int, size: int, G: int, half: bool) -> Any:  # noqa: N803
    """Softmax over scores and the summary, which is one more key, and the mean of the values under it."""
    from numba import njit

    bits = np.uint32(16)

    @njit(fastmath=FAST, nogil=True, cache=True)
    def run(cache, heads, blocks, hidden, weights, log_mass, mean, out, first, end):  # type: ignore[no-untyped-def]
        count, wide = blocks.shape[1], np.empty(size * D, dtype=np.uint32)
        for pair in range(first, end):
            n, head = pair // len(heads), pair % len(heads)
            for row in range(G):
                w, top = weights[n, head, row], log_mass[n, head, row]
                for m in range(count):
                    for t in range(size):
                        top = max(top, w[m, t])
                share = np.exp(log_mass[n, head, row] - top)
                total = share
                for m in range(count):
                    for t in range(size):
                        w[m, t] = np.exp(w[m, t] - top)
                        total += w[m, t]
                for m in range(count):
                    for t in range(size):
                        w[m, t] /= total
                for d in range(D):
                    out[n, head, row, d] = share / total * mean[n, head, d]
            for m in range(count):
                plane = cache[blocks[n, m], heads[head]][D * size :]
                if half:
                    for x in range(D * size):
                        wide[x] = np.uint32(plane[x]) << bits
                    v = wide.view(np.float32)
                else:
                    v = plane
                for row in range(G):
                    w, o = weights[n, head, row, m], out[n, head, row]
                    for t in range(0, size, 8):
                        seen = 0
                        for x in range(t, t + 8):
                            seen += not hidden[n, m, x]
                        if seen == 8:
                            a, b, c, e = w[t], w[t + 1], w[t + 2], w[t + 3]
                            f, g, h, i = w[t + 4], w[t + 5], w[t + 6], w[t + 7]
                            for d in range(D):
                                j = t * D + d
                                o[d] += (
                                    a * v[j] + b * v[j + D] + c * v[j + 2 * D] + e * v[j + 3 * D]
                                    + f * v[j + 4 * D] + g * v[j + 5 * D] + h * v[j + 6 * D] + i * v[j + 7 * D]
                                )  # fmt: skip
                        elif seen:
                            for x in range(t, t + 8):
                                if not hidden[n, m, x]:  # hidden values may be anything, NaN too
                                    for d in range(D):
                                        o[d] += w[x] * v[x * D + d]

    return run
