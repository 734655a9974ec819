"""Reading the attention that vision-encoder tokens receive, without ever keeping an S x S matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

VISION_NAME = "sap_vision_" + __name__.replace(".", "_")
ROWS_AT_ONCE = 512


@dataclass
class Tap:
    """Listens to one attention module of the vision tower.

    Attributes:
        module: the attention module.
        block: consecutive patches that form one decoder token (1 if they are not merged).
        pool: `avg` or `max` over the block of queries and the block of keys.
        skip: leading tokens that are no patches (CLS); their row and column are dropped, nothing is renormalised.
        received: per attention call (B, n): attention that each block of keys receives, summed over query blocks,
            averaged over heads.
    """

    module: torch.nn.Module
    block: int = 1
    pool: str = "avg"
    skip: int = 0
    received: list[torch.Tensor] = field(default_factory=list)

    def listen(self, q: torch.Tensor, k: torch.Tensor, scale: float) -> None:
        """Add one call: q, k (B, h, N, D)."""
        total: torch.Tensor | None = None
        rows = max(ROWS_AT_ONCE // self.block, 1) * self.block
        for part in q[:, :, self.skip :].split(rows, dim=2):
            weights = torch.softmax((part @ k.transpose(-1, -2)).float() * scale, -1)[..., self.skip :]
            found = pool_blocks(weights, self.block, self.pool).sum(2).mean(1)
            total = found if total is None else total + found
        assert total is not None
        self.received.append(total)


def pool_blocks(weights: torch.Tensor, block: int, pool: str) -> torch.Tensor:
    """Attention between blocks of `block` consecutive patches.

    Args:
        weights: (B, h, R, N) with R and N multiples of block.
        pool: `avg` (paper C.3) or `max` (the authors' code) over the queries and the keys of a block.

    Returns:
        (B, h, R / block, N / block).
    """
    blocks = weights.unflatten(3, (-1, block)).unflatten(2, (-1, block))
    return blocks.amax((3, 5)) if pool == "max" else blocks.mean((3, 5))


_TAP: ContextVar[Tap | None] = ContextVar("lostattn_vision_tap", default=None)


@contextmanager
def tapped(tap: Tap) -> Iterator[Tap]:
    """Let `tap` listen to the vision tower while the block runs."""
    token = _TAP.set(tap)
    try:
        yield tap
    finally:
        _TAP.reset(token)


def sap_vision_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """SDPA for the vision tower (transformers' attention interface) that also feeds a listening tap."""
    tap = _TAP.get()
    if tap is not None and tap.module is module:
        tap.listen(query, key, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


AttentionInterface.register(VISION_NAME, sap_vision_forward)
AttentionMaskInterface.register(VISION_NAME, sdpa_mask)
