"""Tile sizes, warps and pipeline stages of the Triton kernels, one table: chosen by what they take of registers and shared memory
when compiled ahead of time (docs/kernels.md), not by running them on a GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tile(NamedTuple):
    """Rows of queries (prefill) and keys of a tile, warps, pipeline stages."""

    rows: int
    keys: int
    warps: int
    stages: int


def decode_tile(dtype: torch.dtype, cache: torch.dtype, d: int) -> Tile:
    """Of `triton_decode`, for queries of one type, a cache of another, and a head size."""
    if dtype == torch.float32 or cache.itemsize == 4:
        return Tile(16, 16, 4 if d <= 64 else 8, 2)
    return Tile(16, 32 if d > 128 else 64, 4, 3)


def prefill_tile(dtype: torch.dtype, cache: torch.dtype, d: int, rows: int, arch: int) -> Tile:
    """Of `triton_prefill`; `rows` are those of a request and KV head (tokens times query heads) on average, `arch` the
    compute capability (90 for 9.0)."""
    few = 16 if rows <= 16 else 32 if rows <= 32 else 64 if rows <= 64 else 128
    if dtype == torch.float32 or cache.itemsize == 4:
        return Tile(16, 16, 8, 2) if few == 16 else Tile(32, 16, 8, 2)
    if d > 128:
        return Tile(min(few, 32), 32, 4, 2)
    narrow = cache.itemsize == 1 or (arch < 90 and few >= 64)  # tiles of 64 keys spill there
    return Tile(few, 32 if narrow else 64, 8 if few == 128 else 4, 3)
