"""Watching which heads a dynamic band chooses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch


@dataclass
class HeadTrace:
    """Choices in the order of the attention calls: layer, ranking (B, H), heads (B, H) bool, scores p (B, K)."""

    layers: list[int] = field(default_factory=list)
    rankings: list[torch.Tensor] = field(default_factory=list)
    heads: list[torch.Tensor] = field(default_factory=list)
    priors: list[torch.Tensor] = field(default_factory=list)

    def add(self, layer: int, ranking: torch.Tensor, heads: torch.Tensor, prior: torch.Tensor) -> None:
        """Note one choice."""
        self.layers.append(layer)
        self.rankings.append(ranking.detach().cpu())
        self.heads.append(heads.detach().cpu())
        self.priors.append(prior.detach().cpu())


_HEAD_TRACE: ContextVar[HeadTrace | None] = ContextVar("lostattn_head_trace", default=None)


def current_trace() -> HeadTrace | None:
    """The trace that is being written, if any."""
    return _HEAD_TRACE.get()


@contextmanager
def trace_heads() -> Iterator[HeadTrace]:
    """Record the head choices of all dynamic plans that run inside the block.

    Example:
        >>> with trace_heads() as trace:
        ...     model.generate(**inputs)
        >>> trace.layers[0], trace.heads[0]
    """
    trace = HeadTrace()
    # checkpoints may have brought copies of this code
    copies = {id(slot): slot for m in list(sys.modules.values()) if (slot := _slot_in(m)) is not None}
    tokens = [(slot, slot.set(trace)) for slot in copies.values()]
    try:
        yield trace
    finally:
        for slot, token in tokens:
            slot.reset(token)


def _slot_in(module: object) -> ContextVar[HeadTrace | None] | None:
    result = getattr(module, "__dict__", {}).get("_HEAD_TRACE")
    return result if isinstance(result, ContextVar) else None
