# mypy: allow-untyped-defs, allow-incomplete-defs
"""Summaries in cache slots and tables, read and written inside kernels: the formats of `Pages` and `triton_fp8_slots`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .triton_common import finite, or_one


class SummaryTable(NamedTuple):
    """Summaries of requests in rows of a table, for layers whose cache holds all keys.

    Attributes:
        log_mass: float32 (P,). mean: float32 (P, Hkv, D), stride 1 in D.
        place: row of each request, int32 (R,), -1 for none.
    """

    log_mass: torch.Tensor
    mean: torch.Tensor
    place: torch.Tensor


class SummaryArgs(NamedTuple):
    """A `SummaryTable`, or slots of the cache, as a kernel takes it; `slot` is int64 (R,) or None."""

    log_mass: Any
    mean: Any
    place: Any
    s_mass: Any
    s_mean: Any
    slot: Any


def summary_args(table: SummaryTable | None, slot: torch.Tensor) -> SummaryArgs:
    """Arguments of a kernel: rows of the table, or slots of the cache if there is no table."""
    if table is None:
        return SummaryArgs(None, None, None, None, None, slot)
    return SummaryArgs(table.log_mass, table.mean, table.place, table.log_mass.stride(0), table.mean.stride()[:2], None)


@triton.jit
def read_slot(cache, slot, g, d, d_in, SIZE: tl.constexpr, FORMAT: tl.constexpr):
    """Log mass (scalar) and mean (DP,) of KV head g in a flat slot (scalar, not negative)."""
    block = slot // SIZE
    offset = slot % SIZE
    key = (
        block * cache.k_strides[0]
        + g.to(tl.int64) * cache.k_strides[1]
        + offset * cache.k_strides[2]
        + d * cache.k_strides[3]
    )
    value = (
        block * cache.v_strides[0]
        + g.to(tl.int64) * cache.v_strides[1]
        + offset * cache.v_strides[2]
        + d * cache.v_strides[3]
    )
    if FORMAT == "float32":
        mass = tl.sum(tl.load(cache.k + key, mask=d == 0, other=0.0), 0)
        return mass, tl.load(cache.v + value, mask=d_in, other=0.0)
    low = tl.load(cache.k_bits + key, mask=d_in, other=0).to(tl.int32)
    high = tl.load(cache.v_bits + value, mask=d_in, other=0).to(tl.int32)
    if FORMAT == "half":
        bits = (high << 16) | (low & 0xFFFF)
        mass = tl.sum(tl.where(d < 32, (bits & 1) << (d & 31), 0), 0).to(tl.int32)
        return mass.to(tl.float32, bitcast=True), bits.to(tl.float32, bitcast=True)
    bits = (high << 8) | low
    mass = tl.sum(tl.where(d < 32, (bits & 1) << (d & 31), 0), 0).to(tl.int32)
    field = tl.sum(tl.where((d >= 32) & (d < 40), (bits & 1) << (d & 7), 0), 0).to(tl.int32)
    half = bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return mass.to(tl.float32, bitcast=True), half * (field << 23).to(tl.float32, bitcast=True)


@triton.jit
def write_slots(cache, slot, keep, g, d, d_in, mass, mean, SIZE: tl.constexpr, FORMAT: tl.constexpr):
    """Summaries mass (T,), mean (T, DP) of KV head g into flat slots (T,) where `keep` (T,)."""
    block = slot // SIZE
    offset = slot % SIZE
    key = block * cache.k_strides[0] + g.to(tl.int64) * cache.k_strides[1] + offset * cache.k_strides[2]
    value = block * cache.v_strides[0] + g.to(tl.int64) * cache.v_strides[1] + offset * cache.v_strides[2]
    whole = keep[:, None] & d_in[None, :]
    to_value = value[:, None] + d[None, :] * cache.v_strides[3]
    to_key = key[:, None] + d[None, :] * cache.k_strides[3]
    if FORMAT == "float32":
        tl.store(cache.k + key, mass, mask=keep)
        tl.store(cache.v + to_value, mean, mask=whole)
        return
    mass_bit = (mass.to(tl.int32, bitcast=True)[:, None] >> (d & 31)[None, :]) & 1
    if FORMAT == "half":
        bits = mean.to(tl.int32, bitcast=True)
        bits = tl.where((d < 32)[None, :], (bits & -2) | mass_bit, bits)
        tl.store(cache.k_bits + to_key, bits.to(tl.int16), mask=whole)
        tl.store(cache.v_bits + to_value, (bits >> 16).to(tl.int16), mask=whole)
    else:
        highest = tl.max(tl.abs(tl.where(d_in[None, :], mean, 0.0)), 1)
        field = tl.maximum((highest.to(tl.int32, bitcast=True) >> 23) - 14, 1)
        scaled = (mean * ((254 - field) << 23).to(tl.float32, bitcast=True)[:, None]).to(tl.float16)
        bits = scaled.to(tl.int16, bitcast=True).to(tl.int32)
        bits = tl.where((d < 32)[None, :], (bits & -2) | mass_bit, bits)
        field_bit = (field[:, None] >> (d & 7)[None, :]) & 1
        bits = tl.where(((d >= 32) & (d < 40))[None, :], (bits & -2) | field_bit, bits)
        tl.store(cache.k_bits + to_key, (bits & 0xFF).to(tl.uint8), mask=whole)
        tl.store(cache.v_bits + to_value, ((bits >> 8) & 0xFF).to(tl.uint8), mask=whole)


@triton.jit
def read_summary(cache, summary, b, g, d, d_in, SIZE: tl.constexpr, FORMAT: tl.constexpr):
    """Log mass (-inf if there is none) and mean (DP,) of request b from its slot (FORMAT of the cache) or from the table."""
    mass = -float("inf")
    mean = tl.zeros(d.shape, tl.float32)
    if FORMAT == "table":
        place = tl.load(summary.place + b).to(tl.int64)
        if place >= 0:
            mass = tl.load(summary.log_mass + place * summary.s_mass)
            at = place * summary.s_mean[0] + g * summary.s_mean[1] + d
            mean = tl.load(summary.mean + at, mask=d_in, other=0.0)
    else:
        slot = tl.load(summary.slot + b)
        if slot >= 0:
            mass, mean = read_slot(cache, slot, g, d, d_in, SIZE, FORMAT)
    return mass, mean


@triton.jit
def merged(acc, lse, mean, log):
    """The normalised text part, acc (ROWS, DP) and lse (ROWS,), joined with `mean`, which broadcasts to acc, of log mass `log`
    (ROWS,); logarithms in base 2."""
    top = finite(tl.maximum(lse, log))
    text = tl.exp2(lse - top)
    image = tl.exp2(log - top)
    both = or_one(text + image)
    return acc * (text / both)[:, None] + (image / both)[:, None] * mean
