"""Reading and writing vLLM's paged KV cache of one layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

LANES, COMPILED_DTYPES = 16, (torch.float32, torch.bfloat16)  # of compiled loops: numbers at once, what they read
LOW16 = 0xFFFF
BITS = 32  # of a float32, one in each of the first 32 channels


@dataclass(frozen=True)
class Pages:
    """A layer's cache.

    Attributes:
        cache: (blocks, H, size, 2 D) as vLLM binds it, any strides.
        columns: vLLM's CPU kernels keep a block's keys as columns (D, size) in front of its values (size, D); else a slot
            is a row of key and value.
    """

    cache: torch.Tensor
    columns: bool

    @cached_property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return self.cache[0].numel() * self.cache.element_size()

    @cached_property
    def own(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the whole cache as views."""
        return self.views(self.cache)

    @cached_property
    def planes(self) -> np.ndarray | None:
        """The cache for compiled loops on CPUs, (blocks, H, 2 D size), bfloat16 as the bits uint16; None if it lies otherwise."""
        if not self.columns or self.cache.device.type != "cpu" or not self.cache[0, 0].is_contiguous():
            return None
        if self.cache.dtype not in COMPILED_DTYPES or self.head_size % LANES or self.size % LANES:
            return None
        planes = self.cache.flatten(2)
        return (planes if planes.dtype == torch.float32 else planes.view(torch.uint16)).numpy()

    @property
    def size(self) -> int:
        """Tokens of a block."""
        return self.cache.shape[2]

    @property
    def head_size(self) -> int:
        """D."""
        return self.cache.shape[3] // 2

    def views(self, cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a cache as views (blocks, H, size, D)."""
        d = cache.shape[3] // 2
        if not self.columns:
            return cache[..., :d], cache[..., d:]
        plane = cache.flatten(2)
        half = plane.shape[2] // 2
        k = plane[..., :half].unflatten(2, (d, cache.shape[2])).transpose(2, 3)
        return k, plane[..., half:].unflatten(2, (cache.shape[2], d))

    def gather(self, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of some blocks' keys and values, each (m, H, size, D) in the cache's order of memory."""
        return self.views(self.cache.index_select(0, blocks))

    def tokens(self, slots: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of single slots (blocks (T,), offsets (T,)), each (H, T, D)."""
        k, v = self.own
        at, offset = slots
        return k[at, :, offset].transpose(0, 1), v[at, :, offset].transpose(0, 1)

    def values(self, slots: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Values alone, (H, T, D)."""
        return self.own[1][slots[0], :, slots[1]].transpose(0, 1)

    def write_summaries(
        self, slots: tuple[torch.Tensor, torch.Tensor], log_mass: torch.Tensor, mean: torch.Tensor
    ) -> None:
        """Put running summaries into slots of visual tokens, in float32 whatever the cache holds.

        In a cache of 16 bits key and value together have room for the mean's D float32 numbers; the 32 bits of the log
        mass take the lowest bit of 32 of them, which is 1e-7 of their value.

        Args:
            log_mass: (w,) float32, or (w, H) where heads differ. mean: (w, H, D) float32.
        """
        log_mass = log_mass[:, None].expand(-1, mean.shape[1]) if log_mass.dim() == 1 else log_mass
        k, v = self.own
        at, offset = slots
        if self.cache.dtype == torch.float32:
            k[at, :, offset, 0] = log_mass
            v[at, :, offset] = mean
            return
        bits = mean.contiguous().view(torch.int32).clone()
        order = torch.arange(BITS, dtype=torch.int32, device=mean.device)
        mass = (log_mass.contiguous().view(torch.int32)[..., None] >> order) & 1
        bits[..., :BITS] = (bits[..., :BITS] & ~1) | mass
        k.view(torch.int16)[at, :, offset] = _to_int16(bits & LOW16)
        v.view(torch.int16)[at, :, offset] = _to_int16((bits >> 16) & LOW16)

    def read_summaries(
        self, slots: tuple[torch.Tensor, torch.Tensor], by_head: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log mass (w,) and mean (w, H, D), float32, of slots (blocks (w,), offsets (w,)); `by_head`: log mass (w, H)."""
        k, v = self.own
        at, offset = slots
        if self.cache.dtype == torch.float32:
            return k[at, :, offset, 0] if by_head else k[at, 0, offset, 0], v[at, :, offset]
        low = k.view(torch.int16)[at, :, offset].to(torch.int32) & LOW16
        bits = (v.view(torch.int16)[at, :, offset].to(torch.int32) << 16) | low
        order = torch.arange(BITS, dtype=torch.int32, device=bits.device)
        mass = (((bits if by_head else bits[:, 0])[..., :BITS] & 1) << order).sum(-1, dtype=torch.int32)
        return mass.view(torch.float32), bits.view(torch.float32)


def _to_int16(bits: torch.Tensor) -> torch.Tensor:
    """The low 16 bits of int32 numbers 0..65535 as int16."""
    return torch.where(bits >= 1 << 15, bits - (1 << 16), bits).to(torch.int16)
