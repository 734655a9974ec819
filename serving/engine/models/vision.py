"""Listening to vLLM's vision towers: what every image token receives in the last layer, without an S x S matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ....patches.tap import Tap
from ..internals import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce


def attach(attention: Any, heads: int, tap: Tap) -> Any:
    """Let a tap listen to a vision attention module of vLLM (`MMEncoderAttention`); returns the hook's handle.

    Args:
        heads: the module's heads on this rank.
    """

    def listen(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        q, k = (_by_head(kwargs[name] if name in kwargs else args[i], heads) for i, name in enumerate(("query", "key")))
        borders = kwargs.get("cu_seqlens")
        cuts = [0, q.shape[2]] if borders is None else borders.tolist()
        for start, end in zip(cuts, cuts[1:], strict=False):
            if end > start:
                tap.listen(q[:, :, start:end], k[:, :, start:end], q.shape[-1] ** -0.5)

    return attention.register_forward_pre_hook(listen, with_kwargs=True)


@contextmanager
def listening(attention: Any, heads: int, tap: Tap) -> Iterator[Tap]:
    """Attach while the block runs, then average over the heads of all ranks."""
    handle = attach(attention, heads, tap)
    try:
        yield tap
    finally:
        handle.remove()
    average_over_ranks(tap)


def average_over_ranks(tap: Tap) -> None:
    """Mean over heads of all tensor-parallel ranks, each of which has heard its own."""
    ranks = get_tensor_model_parallel_world_size()
    if ranks > 1:
        tap.received[:] = [tensor_model_parallel_all_reduce(x) / ranks for x in tap.received]


def _by_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, h, D) or (B, N, h D) as (B, h, N, D)."""
    return (x if x.dim() == 4 else x.unflatten(-1, (heads, -1))).transpose(1, 2)
