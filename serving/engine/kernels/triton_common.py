# mypy: allow-untyped-defs, allow-incomplete-defs
"""What the Triton kernels share: arguments in bundles, numbers of 8-bit caches, dots, and which request a program serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

INTERPRETED = bool(triton.knobs.runtime.interpret)
LOG2E = tl.constexpr(1.4426950408889634)
E4M3_AS_HALF = tl.constexpr(256.0)  # bits of an e4m3 number, moved into a float16, give the number / 256
FP8_NATIVE, FP8_BITS = (
    1,
    2,
)  # how e4m3 is read: by the processor, or bit by bit where it has no such type (before sm 89)


@dataclass(frozen=True)
class PagedCache:
    """Keys and values of one layer's paged cache.

    Attributes:
        k, v: (blocks, Hkv, size, D), any strides; float32, float16, bfloat16, or e4m3 (float8_e4m3fn, or its bytes as uint8).
        k_scale, v_scale: float32, (1,) or (Hkv,): what numbers of an e4m3 cache are multiplied by; None for 1.
    """

    k: torch.Tensor
    v: torch.Tensor
    k_scale: torch.Tensor | None = None
    v_scale: torch.Tensor | None = None

    @property
    def is_fp8(self) -> bool:
        """True if the cache holds e4m3."""
        return self.k.element_size() == 1

    @property
    def format(self) -> str:
        """How a slot holds a summary, see `triton_slots`."""
        return {4: "float32", 2: "half", 1: "fp8"}[self.k.element_size()]


class CacheArgs(NamedTuple):
    """A `PagedCache` as a kernel takes it: pointers (also to the bits), strides (block, head, slot, channel)."""

    k: Any
    v: Any
    k_bits: Any
    v_bits: Any
    k_scale: Any
    v_scale: Any
    k_strides: Any
    v_strides: Any
    s_scale: Any


def architecture() -> int:
    """Compute capability that kernels are compiled for, 90 for 9.0; in the interpreter that of the oldest GPU."""
    return 80 if INTERPRETED else int(triton.runtime.driver.active.get_current_target().arch)


def fp8_mode(cache: PagedCache) -> int:
    """How e4m3 numbers of the cache are read: 0 there are none, FP8_NATIVE or FP8_BITS."""
    if not cache.is_fp8:
        return 0
    return FP8_NATIVE if architecture() >= 89 else FP8_BITS


def cache_args(cache: PagedCache) -> CacheArgs:
    """Arguments of a kernel."""
    bits = {4: torch.int32, 2: torch.int16, 1: torch.uint8}[cache.k.element_size()]
    number = {0: cache.k.dtype, FP8_NATIVE: torch.float8_e4m3fn, FP8_BITS: torch.uint8}[fp8_mode(cache)]
    k, v, k_bits, v_bits = (x.view(t) for t in (number, bits) for x in (cache.k, cache.v))
    wide = cache.k_scale is not None and cache.k_scale.numel() > 1
    scales = cache.k_scale, cache.v_scale
    return CacheArgs(k, v, k_bits, v_bits, *scales, cache.k.stride(), cache.v.stride(), int(wide))


def widened(dtype: torch.dtype) -> bool:
    """Whether dots take float32: Triton's interpreter multiplies the bit patterns of bfloat16, for which NumPy has no type."""
    return INTERPRETED and dtype == torch.bfloat16


@triton.jit
def dot(a, b, acc, WIDE: tl.constexpr):
    """a @ b + acc; the operands stay rounded as they are where they are widened, so the products are the same numbers."""
    if WIDE:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def number(x, FP8: tl.constexpr, dtype: tl.constexpr):
    """What a cache holds, as an operand of a dot. The bits of e4m3 come 256 times too small."""
    if FP8 == 2:
        wide = x.to(tl.int16)
        bits = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        return bits.to(tl.float16, bitcast=True).to(dtype)
    return x.to(dtype)


@triton.jit
def factors(cache, g, scale, FP8: tl.constexpr):
    """What scores and values are multiplied by: scale in base 2 and the cache's own scales."""
    score = scale * LOG2E
    value = 1.0
    if FP8 == 2:
        score *= E4M3_AS_HALF
        value *= E4M3_AS_HALF
    if FP8 != 0:
        if cache.k_scale is not None:
            score *= tl.load(cache.k_scale + g * cache.s_scale)
        if cache.v_scale is not None:
            value *= tl.load(cache.v_scale + g * cache.s_scale)
    return score, value


@triton.jit
def finite(x):
    """0 instead of -inf, as the subtrahend of scores that are all -inf."""
    return tl.where(x == -float("inf"), 0.0, x)


@triton.jit
def or_one(x):
    """1 instead of 0, as a divisor."""
    return tl.where(x > 0, x, 1.0)


@triton.jit
def request_of(starts, requests, pid, ROWS: tl.constexpr):
    """Request of program `pid` among blocks of ROWS rows of every request, and the number of its block within the request.

    Programs are numbered (starts[i] - starts[0]) // ROWS + i onwards, which leaves each request at least as many as it has
    blocks; those too many find that their block begins behind the request's last row.
    """
    base = tl.load(starts)
    low = 0
    high = requests
    while high - low > 1:
        middle = (low + high) // 2
        before = (tl.load(starts + middle) - base) // ROWS + middle <= pid
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low, pid - ((tl.load(starts + low) - base) // ROWS + low)


def programs_for(rows: int, requests: int, block: int) -> int:
    """Programs that `request_of` needs."""
    return rows // block + requests
