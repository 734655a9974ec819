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
    wide = d > 128
    if dtype == torch.float32:
        return Tile(16, 16, 4, 2)
    if cache.itemsize == 4:
        return Tile(16, 32, 4, 2)
    return Tile(16, 32 if wide else 64, 4, 3)
