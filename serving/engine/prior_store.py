"""The prior of the visual tokens that the KV cache holds: one float32 a cache slot, beside the paged cache."""

from __future__ import annotations

import torch


class PriorStore:
    """Prior numbers by cache slot, for one KV-cache group; they live and move with its blocks.

    4 bytes a token for all layers together; at 28 layers and 4 KV heads of 128 channels in 16 bits that is 0.007 % of the cache.
    """

    def __init__(self) -> None:
        self.numbers = torch.zeros(0)
        self.written: object | None = None

    def write(self, step: object, slots: torch.Tensor, prior: torch.Tensor, cache: torch.Tensor) -> None:
        """Note the prior of a step's new tokens, once a step: the first layer that runs does it.

        Args:
            slots: slot of every new token, int64 (n,), negative for none. prior: (n,) float32, NaN on text.
            cache: a layer's cache (blocks, H, size, 2 D), for its number of slots.
        """
        if self.written is step:
            return
        count = cache.shape[0] * cache.shape[2]
        if self.numbers.numel() != count:
            self.numbers = torch.full((count,), torch.nan, device=cache.device)
        self.numbers[slots.clamp_min(0)] = torch.where(slots < 0, self.numbers[0], prior)
        self.written = step

    def read(self, slots: tuple[torch.Tensor, torch.Tensor], size: int) -> torch.Tensor:
        """Prior at (blocks, offsets), any shape."""
        return self.numbers[slots[0] * size + slots[1]]
