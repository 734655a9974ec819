"""How the native backend lays keys and values out in a cache block, found out by writing one and reading it back."""

from __future__ import annotations

from typing import Any

import torch

from ....patches.errors import LostattnError
from .pages import Pages

_known: dict[tuple[str, torch.dtype, tuple[int, ...]], bool] = {}


def columns_of(native: Any, cache: torch.Tensor) -> bool:
    """Whether a block's keys lie as columns (vLLM's CPU kernels) or as rows; see `Pages`.

    Raises:
        LostattnError: neither: the kernels of this processor pack their cache in a way that is not known.
    """
    if cache.device.type != "cpu":
        return False
    key = (type(native).__name__, cache.dtype, tuple(cache.shape[1:]))
    if key not in _known:
        _known[key] = _probe(native, cache)
    return _known[key]


def _probe(native: Any, cache: torch.Tensor) -> bool:
    _, heads, size, twice = cache.shape
    d = twice // 2
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(size, heads, d, generator=generator).to(cache.dtype) for _ in range(2))
    trial = torch.zeros(2, heads, size, twice, dtype=cache.dtype)
    native.do_kv_cache_update(_Layer(size, d), k, v, trial, torch.arange(size, 2 * size))
    for columns in (True, False):
        found_k, found_v = Pages(trial, columns).gather(torch.tensor([1]))
        if torch.equal(found_k[0].transpose(0, 1), k) and torch.equal(found_v[0].transpose(0, 1), v):
            return columns
    raise LostattnError(
        "vLLM's attention kernels for this processor pack the KV cache in a way that patched layers cannot read: serve on "
        "x86 with AVX2 or AVX-512, or on a GPU"
    )


class _Layer:
    """What the native cache update asks of its layer: the kernels' name and no scales."""

    _k_scale_float = _v_scale_float = 1.0

    def __init__(self, size: int, head_size: int) -> None:
        self.isa = "vec16" if head_size % 32 or size % 32 else "vec"
