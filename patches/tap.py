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
        order: numbers of the patches, token by token, where those of a token do not stand together, (N,), or (B, N) where
            pictures differ; None: as they stand.
        received: per attention call (B, n): attention that each block of keys receives, summed over query blocks,
            averaged over heads.
    """

    module: torch.nn.Module
    block: int = 1
    pool: str = "avg"
    skip: int = 0
    order: torch.Tensor | None = None
    received: list[torch.Tensor] = field(default_factory=list)

    def listen(self, q: torch.Tensor, k: torch.Tensor, scale: float, mask: torch.Tensor | None = None) -> None:
        """Add one call.

        Args:
            q, k: (B, h, N, D).
            mask: bool (True = may see) or additive, broadcastable to (B, h, N, N). Tokens that may not see themselves are
                padding: the mean over the queries leaves them out.
        """
        patches = torch.arange(self.skip, q.shape[2], device=q.device)
        seen = None if mask is None else _seen(mask).expand(-1, -1, q.shape[2], -1)
        if self.order is not None and self.order.dim() == 2:
            at = patches[self.order.to(q.device)][:, None]
            q, k = q.take_along_dim(at[..., None], 2), k.take_along_dim(at[..., None], 2)
            seen = None if seen is None else seen.take_along_dim(at[..., None], 2).take_along_dim(at[:, :, None], 3)
        elif self.order is not None:
            patches = patches[self.order.to(q.device)]
        total = q.new_zeros(q.shape[0], len(patches) // self.block, dtype=torch.float32)
        real = q.new_zeros(1, dtype=torch.int64)
        for rows in patches.split(max(ROWS_AT_ONCE // self.block, 1) * self.block):
            scores = (q[:, :, rows] @ k.transpose(-1, -2)).float() * scale
            if seen is not None:
                scores = scores.masked_fill(~seen[:, :, rows], torch.finfo(torch.float32).min)
            weights = torch.softmax(scores, -1)[..., patches]
            if seen is not None:
                own = seen[:, :, rows, rows]
                weights, real = weights * own[..., None], real + own.sum(-1)[:, 0]
            total = total + pool_blocks(weights, self.block, self.pool).sum(2).mean(1)
        if seen is not None:
            total = total * (len(patches) / real)[:, None]
        self.received.append(total)


def _seen(mask: torch.Tensor) -> torch.Tensor:
    """The mask as bool."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


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
        tap.listen(query, key, query.shape[-1] ** -0.5 if scaling is None else scaling, attention_mask)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


AttentionInterface.register(VISION_NAME, sap_vision_forward)
AttentionMaskInterface.register(VISION_NAME, sdpa_mask)
