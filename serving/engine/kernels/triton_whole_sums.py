# mypy: allow-untyped-defs, allow-incomplete-defs
"""Log mass and mean of all visual tokens of requests whose keys and values the cache holds in full, by block table and prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .triton_common import PagedCache, cache_args, factors, finite, fp8_mode, number, or_one
from .triton_slots import SummaryTable, summary_args


@dataclass(frozen=True)
class WholeScratch:
    """Parts of requests that are split: float32 (R, Hkv, splits, D), (R, Hkv, splits) twice; done: int32 (R, Hkv), zero between
    launches."""

    part: torch.Tensor
    top: torch.Tensor
    mass: torch.Tensor
    done: torch.Tensor

    @classmethod
    def of(cls, requests: int, kv_heads: int, d: int, splits: int, device: torch.device | str) -> WholeScratch:
        """Buffers for so many requests and splits."""
        part = torch.empty(requests, kv_heads, splits, d, dtype=torch.float32, device=device)
        done = torch.zeros(requests, kv_heads, dtype=torch.int32, device=device)
        return cls(part, torch.empty_like(part[..., 0]), torch.empty_like(part[..., 0]), done)


class _Where(NamedTuple):
    """Block table, its stride, lengths (R,), prior by slot."""

    table: Any
    stride: Any
    lengths: Any
    prior: Any


class _Parts(NamedTuple):
    part: Any
    top: Any
    mass: Any
    done: Any


class WholeShape(NamedTuple):
    """Constants: head size and its next power, slots of a block, positions of a tile, splits and their next power, e4m3."""

    D: int
    DP: int
    SIZE: int
    TILE: int
    SPLITS: int
    SP: int
    FP8: int


@triton.jit
def _sum_tiles(cache, where, b, g, first, end, length, d, d_in, shape: tl.constexpr):
    """Tiles first..end-1 of a request's positions: largest score, mass relative to it, weighted sum (DP,)."""
    t = tl.arange(0, shape.TILE)
    top = -float("inf")
    weight = tl.zeros([shape.TILE], tl.float32)
    acc = tl.zeros([shape.TILE, shape.DP], tl.float32)
    empty: tl.constexpr = 0 if shape.FP8 == 2 else 0.0
    table = where.table + b.to(tl.int64) * where.stride
    for tile in tl.range(first, end):
        position = tile * shape.TILE + t
        there = position < length
        block = tl.load(table + position // shape.SIZE, mask=there, other=0).to(tl.int64)
        slot = position % shape.SIZE
        p = tl.load(where.prior + block * shape.SIZE + slot, mask=there, other=float("nan"))
        visual = p == p
        p = tl.where(visual, p, -float("inf"))
        at = block * cache.v_strides[0] + g.to(tl.int64) * cache.v_strides[1] + slot * cache.v_strides[2]
        at = at[:, None] + d[None, :] * cache.v_strides[3]
        x = number(tl.load(cache.v + at, mask=visual[:, None] & d_in[None, :], other=empty), shape.FP8, tl.float32)
        higher = tl.maximum(top, tl.max(p, 0))
        w = tl.exp(p - finite(higher))
        fade = tl.exp(top - finite(higher))
        acc = acc * fade + w[:, None] * x
        weight = weight * fade + w
        top = higher
    return top, tl.sum(weight, 0), tl.sum(acc, 0)


@triton.jit
def whole_kernel(cache, where, summary, parts, shape: tl.constexpr):
    """Grid (KV heads, splits, requests); the last program of a request and KV head to come home joins the parts."""
    g = tl.program_id(0)
    split = tl.program_id(1)
    b = tl.program_id(2)
    place = tl.load(summary.place + b).to(tl.int64)
    if place < 0:
        return
    d = tl.arange(0, shape.DP)
    d_in = d < shape.D
    length = tl.load(where.lengths + b)
    tiles = tl.cdiv(length, shape.TILE)
    per = tl.maximum(tl.cdiv(tiles, shape.SPLITS), 1)
    used = tl.maximum(tl.cdiv(tiles, per), 1)
    if split >= used:
        return
    end = tl.minimum((split + 1) * per, tiles)
    top, mass, acc = _sum_tiles(cache, where, b, g, split * per, end, length, d, d_in, shape)
    heads = tl.num_programs(0)
    line = (b * heads + g).to(tl.int64) * shape.SPLITS
    tl.store(parts.top + line + split, top)
    tl.store(parts.mass + line + split, mass)
    tl.store(parts.part + (line + split) * shape.D + d, acc, mask=d_in)
    tl.debug_barrier()  # every thread has stored before one of them tells
    if tl.atomic_add(parts.done + b * heads + g, 1, sem="acq_rel", scope="gpu") == used - 1:
        s = tl.arange(0, shape.SP)
        tops = tl.load(parts.top + line + s, mask=s < used, other=-float("inf"), cache_modifier=".cg")
        masses = tl.load(parts.mass + line + s, mask=s < used, other=0.0, cache_modifier=".cg")
        at = (line + s)[:, None] * shape.D + d[None, :]
        sums = tl.load(parts.part + at, mask=(s < used)[:, None] & d_in[None, :], other=0.0, cache_modifier=".cg")
        top = tl.max(tops, 0)
        w = tl.exp(tops - finite(top))
        mass = tl.sum(w * masses, 0)
        score, grow = factors(cache, g, 1.0, shape.FP8)
        mean = tl.sum(w[:, None] * sums, 0) * (grow / or_one(mass))
        tl.store(summary.mean + place * summary.s_mean[0] + g * summary.s_mean[1] + d, mean, mask=d_in)
        if g == 0:
            tl.store(summary.log_mass + place * summary.s_mass, top + tl.log(or_one(mass)))
        tl.store(parts.done + b * heads + g, 0)  # ready for the next launch


def whole_sums(
    table: SummaryTable,
    cache: PagedCache,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    prior: torch.Tensor,
    scratch: WholeScratch,
) -> None:
    """Fill rows of a table with the summaries of requests. One launch, nothing is read on the host.

    Args:
        table: row `place[i]` is written for request i, none where that is -1; -inf and 0 without a visual token.
        cache: of the layer, which holds the values of visual tokens.
        block_table: int32 (R, C), stride 1 in C.
        lengths: visual tokens at positions below count, int32 (R,).
        prior: by flat slot, float32, NaN on text, as `PriorStore` keeps it.
        scratch: for at least R requests.
    """
    kv_heads, d = cache.v.shape[1], cache.v.shape[3]
    splits = scratch.part.shape[2]
    dp = triton.next_power_of_2(d)
    shape = WholeShape(
        d, dp, cache.v.shape[2], 64 if d <= 128 else 32, splits, triton.next_power_of_2(splits), fp8_mode(cache)
    )
    whole_kernel[(kv_heads, splits, len(lengths))](
        cache_args(cache),
        _Where(block_table, block_table.stride(0), lengths, prior),
        summary_args(table, lengths),
        _Parts(scratch.part, scratch.top, scratch.mass, scratch.done),
        shape,
        num_warps=4,
    )
