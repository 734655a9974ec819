"""The same as `decode_attention` on CPUs, where the cache lies: compiled by numba, which vLLM's CPU build brings.

A block is read once for all query heads of its KV head and nothing is gathered, which the torch form spends most of its time
on. Sizes are constants of the compiled code: vectors of unknown length cost five times as much. vLLM's own kernel is no
faster, so heads without a prior are computed in the same pass where whole rows are asked for.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import torch

from ..cache.pages import Pages
from ..cache.text_blocks import DecodeRows
from .numba_support import answer_no_special_names, in_parallel
from .torch_decode import decode_attention

FEW = 64  # pairs of KV head and block that are not worth a second thread


@cache
def prepare(D: int, size: int, dtype: torch.dtype) -> None:  # noqa: N803
    """Compile before the first request; the code is kept on disk, so this takes seconds once."""
    cache = torch.zeros(1, 1, size, 2 * D, dtype=dtype)
    blocks, hidden = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, size, dtype=torch.bool)
    queries = DecodeRows(blocks[0], blocks, hidden, ())
    # the default dtype is the model's while vLLM loads it
    shapes = (1, 1, 1, D), (1, 1, D), (1,), (1, 1)
    q, mean, mass, level = (torch.zeros(shape, dtype=torch.float32) for shape in shapes)
    numba_decode_attention(queries, q, Pages(cache, True), 1.0, mass, mean, level)


def numba_decode_attention(
    queries: DecodeRows,
    q: torch.Tensor,
    pages: Pages,
    scale: float,
    log_mass: torch.Tensor,
    mean: torch.Tensor,
    level: torch.Tensor,
    wanted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Arguments and result of `decode_attention`, which serves caches that have no `Pages.planes`.

    Heads that are not wanted see every key if `queries` lists all blocks.
    """
    if pages.planes is None:
        assert queries.lengths is None
        return decode_attention(queries, q, pages, scale, log_mass, mean, level, wanted)
    answer_no_special_names()
    from .numba_decode_kernel import attention_kernel

    count, heads, group, channels = q.shape
    out = torch.empty(count, heads, group, channels, dtype=torch.float32)
    arguments = (
        q.float().contiguous().numpy(),
        scale,
        pages.planes,
        *_order(wanted, heads, group, queries.lengths is not None),
        *queries.arrays,
        log_mass.contiguous().numpy(),
        level.numpy(),
        mean.contiguous().numpy(),
        out.numpy(),
    )
    kernel = attention_kernel(channels, pages.size)
    pairs = count * heads
    in_parallel(lambda first, end: kernel(*arguments, first, end), pairs, pairs * queries.blocks.shape[1] // FEW)
    return out


@lru_cache(maxsize=512)
def _order(wanted: torch.Tensor | None, heads: int, group: int, every: bool) -> tuple[Any, Any, Any]:
    """Query heads to compute, int64 (heads, group): those that see every key first, then those wanted; how many of each KV
    head are computed, how many of them see every key."""
    asked = torch.ones(heads, group, dtype=torch.bool) if wanted is None else wanted
    plain = (~asked).sum(1) if every else asked.new_zeros(heads, dtype=torch.int64)
    order = torch.argsort((asked if every else ~asked).int(), dim=1, stable=True)
    return order.numpy(), (plain + asked.sum(1)).numpy(), plain.numpy()
