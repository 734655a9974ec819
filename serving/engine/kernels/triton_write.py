# mypy: allow-untyped-defs, allow-incomplete-defs
"""The new rows of a step into a paged cache: keys and values of text, and running summaries where requests bring one row each."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .triton_common import PagedCache, cache_args, finite, or_one
from .triton_slots import SummaryTable, read_slot, summary_args, write_slots

SKIP, EXTEND, KEEP = 0, 1, 2  # what becomes of a visual row, see `write_rows`


class WriteShape(NamedTuple):
    """Constants: KV heads, head size and its next power, slots of a block, format of summaries, what becomes of visual rows,
    whether keys and values are written, whether there is a table."""

    HEADS: int
    D: int
    DP: int
    SIZE: int
    FORMAT: str
    VISUAL: int
    TEXT: bool
    TABLE: bool


class _New(NamedTuple):
    k: Any
    v: Any
    prior: Any
    slots: Any
    carry: Any
    store: Any
    k_strides: Any
    v_strides: Any


@triton.jit
def _extended(mass, mean, p, value):
    """Log mass and mean (DP,) with one more visual token of score p."""
    top = finite(tl.maximum(mass, p))
    old = tl.exp(mass - top)
    own = tl.exp(p - top)
    both = or_one(old + own)
    return tl.where(old + own > 0, top + tl.log(both), -float("inf")), mean * (old / both) + value * (own / both)


@triton.jit
def _summarise(new, cache, r, slot, p, d, d_in, shape: tl.constexpr):
    """Row r as the running summary of its request, into its slot."""
    carry = tl.load(new.carry + r)
    for g in range(shape.HEADS):
        mass = -float("inf")
        mean = tl.zeros([shape.DP], tl.float32)
        head = slot.to(tl.int32) * 0 + g
        if carry >= 0:
            mass, mean = read_slot(cache, carry, head, d, d_in, shape.SIZE, shape.FORMAT)
        value = tl.load(new.v + r * new.v_strides[0] + g * new.v_strides[1] + d, mask=d_in, other=0.0).to(tl.float32)
        mass, mean = _extended(mass, mean, p, value)
        at = slot + tl.zeros([1], tl.int64)
        one = at >= 0
        write_slots(
            cache, at, one, head, d, d_in, mass + tl.zeros([1], tl.float32), mean[None, :], shape.SIZE, shape.FORMAT
        )


@triton.jit
def _extend_table(new, table, r, p, d, d_in, shape: tl.constexpr):
    """The request's row of the table, with the visual token of row r."""
    place = tl.load(table.place + r).to(tl.int64)
    if place >= 0:
        before = tl.load(table.log_mass + place * table.s_mass)
        mass = before
        for g in range(shape.HEADS):
            value = tl.load(new.v + r * new.v_strides[0] + g * new.v_strides[1] + d, mask=d_in, other=0.0)
            to = table.mean + place * table.s_mean[0] + g * table.s_mean[1] + d
            mass, mean = _extended(before, tl.load(to, mask=d_in, other=0.0), p, value.to(tl.float32))
            tl.store(to, mean, mask=d_in)
        tl.store(table.log_mass + place * table.s_mass, mass)


@triton.jit
def _copy(new, cache, r, slot, d, d_in, shape: tl.constexpr):
    """Key and value of row r into its slot."""
    block = slot // shape.SIZE
    offset = slot % shape.SIZE
    for g in range(shape.HEADS):
        key = tl.load(new.k + r * new.k_strides[0] + g * new.k_strides[1] + d, mask=d_in, other=0.0)
        value = tl.load(new.v + r * new.v_strides[0] + g * new.v_strides[1] + d, mask=d_in, other=0.0)
        to = block * cache.k_strides[0] + g * cache.k_strides[1] + offset * cache.k_strides[2] + d * cache.k_strides[3]
        tl.store(cache.k + to, key.to(cache.k.dtype.element_ty), mask=d_in)
        to = block * cache.v_strides[0] + g * cache.v_strides[1] + offset * cache.v_strides[2] + d * cache.v_strides[3]
        tl.store(cache.v + to, value.to(cache.v.dtype.element_ty), mask=d_in)


@triton.jit
def write_kernel(new, cache, table, shape: tl.constexpr):
    """Grid (rows,). Block 0 is vLLM's null block: what would go there is kept by nobody."""
    r = tl.program_id(0).to(tl.int64)
    slot = tl.load(new.slots + r).to(tl.int64)
    if slot < shape.SIZE:
        return
    d = tl.arange(0, shape.DP)
    d_in = d < shape.D
    p = tl.load(new.prior + r)
    visual = p == p
    if new.store is not None:
        tl.store(new.store + slot, p)
    if shape.VISUAL == 2:
        if shape.TEXT:
            _copy(new, cache, r, slot, d, d_in, shape)
        if shape.TABLE and visual:
            _extend_table(new, table, r, p, d, d_in, shape)
    elif visual:
        if shape.VISUAL == 1:
            _summarise(new, cache, r, slot, p, d, d_in, shape)
    elif shape.TEXT:
        _copy(new, cache, r, slot, d, d_in, shape)


def write_rows(
    cache: PagedCache,
    k: torch.Tensor,
    v: torch.Tensor,
    prior: torch.Tensor,
    slots: torch.Tensor,
    visual: int,
    carry: torch.Tensor | None = None,
    store: torch.Tensor | None = None,
    table: SummaryTable | None = None,
) -> None:
    """One launch, nothing is read on the host.

    An e4m3 cache takes keys and values from the backend's own kernel, in front of this one; then only what belongs to visual
    rows is written here.

    Args:
        cache: of the layer. k, v: new keys and values (n, Hkv, D), stride 1 in D.
        prior: scores of the rows, float32 (n,), NaN on text.
        slots: flat slots of the rows, int64 (n,); nothing is written for negative ones and those of block 0.
        visual: what becomes of a visual row. SKIP: nothing, other kernels write its summary. EXTEND: its slot gets the request's
            running summary, each request having one row. KEEP: its key and value are written as those of text.
        carry: slot of the summary that EXTEND goes on from, int64 (n,), -1 for none.
        store: gets the prior by flat slot, float32, or None.
        table: with KEEP and one row a request: rows that go on with their visual row, or None.
    """
    rows, heads, d = k.shape
    shape = WriteShape(
        heads, d, triton.next_power_of_2(d), cache.k.shape[2], cache.format, visual, not cache.is_fp8, table is not None
    )
    new = _New(k, v, prior, slots, carry, store, k.stride()[:2], v.stride()[:2])
    write_kernel[(rows,)](new, cache_args(cache), summary_args(table, slots), shape, num_warps=2)


def specify_extended(
    log_mass: torch.Tensor, mean: torch.Tensor, prior: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log mass () and mean (Hkv, D) with one more visual token of score prior () and value (Hkv, D), in float64."""
    both = torch.stack([log_mass.double(), prior.double()])
    total = torch.logsumexp(both, 0)
    old, own = (both - total).exp()
    return total, old * mean.double() + own * value.double()
