# mypy: allow-untyped-defs, allow-incomplete-defs
"""Running summaries of visual tokens, and sums over all visual tokens of a request (DESIGN 2: log Z = log sum exp(p_j) and
m = sum exp(p_j) v_j / Z over the visual tokens j up to a row).

Every row has the largest score up to itself as its own reference, so that no exponent is above 0 however far scores lie apart,
and products are summed up in float32. `running_sums` takes two launches: the sums of segments of the step's rows, and, beginning
from the carried summary and the segments in front, the sums up to every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .triton_common import PagedCache, cache_args, finite, or_one, programs_for, request_of
from .triton_slots import SummaryTable, read_summary, summary_args, write_slots

SEGMENT, TOGETHER = 256, 16  # rows that one program sums up; segments that are joined at once


@dataclass(frozen=True)
class RunningSums:
    """Summaries up to the visual rows of a step, and in row n + i the carried one of request i; other rows are not written.

    Attributes:
        log_mass: float32 (n + R,), -inf without a carry. mean: float32 (n + R, Hkv, D), contiguous.
        top, mass, part: sums of segments, float32 (P,), (P,), (P, Hkv, D).
    """

    log_mass: torch.Tensor
    mean: torch.Tensor
    top: torch.Tensor
    mass: torch.Tensor
    part: torch.Tensor

    @classmethod
    def of(cls, rows: int, requests: int, kv_heads: int, d: int, device: torch.device | str) -> RunningSums:
        """Buffers for n rows of R requests; layers that run one after the other share them."""

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=torch.float32, device=device)

        n, count = rows + requests, programs_for(rows, requests, SEGMENT)
        return cls(empty(n), empty(n, kv_heads, d), empty(count), empty(count), empty(count, kv_heads, d))


class SumShape(NamedTuple):
    """Constants: head size and its next power, slots of a block, rows of a tile, how a carry and a slot are kept, rows of a
    segment and segments that are joined at once."""

    D: int
    DP: int
    SIZE: int
    TILE: int
    CARRY: str
    FORMAT: str
    SEGMENT: int
    TOGETHER: int


class _New(NamedTuple):
    """The step's rows: prior (n,), values (n, Hkv, D), first rows (R + 1,), slots (n,) or None, strides."""

    prior: Any
    v: Any
    starts: Any
    slots: Any
    v_strides: Any


class _Sums(NamedTuple):
    log_mass: Any
    mean: Any
    top: Any
    mass: Any
    part: Any


def specify_running(
    prior: torch.Tensor, v: torch.Tensor, carry: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one request in float64: log mass (n,) and mean (n, Hkv, D) of carry and visual rows up to every row, -inf and 0 if none.

    Args:
        prior: (n,), NaN on text. v: (n, Hkv, D). carry: log mass () and mean (Hkv, D).
    """
    log_mass, mean = prior.double().new_full((len(prior),), -torch.inf), torch.zeros_like(v, dtype=torch.float64)
    for t in range(len(prior)):
        seen = (~prior[: t + 1].isnan()).nonzero()[:, 0]
        scores, values = prior[seen].double(), v[seen].double()
        if carry is not None:
            scores, values = torch.cat([carry[0][None], scores]), torch.cat([carry[1][None], values])
        if len(scores):
            log_mass[t], mean[t] = torch.logsumexp(scores, 0), torch.einsum("t,tgd->gd", scores.softmax(0), values)
    return log_mass, mean


@triton.jit
def _rows(new, start, count, first, g, d, d_in, shape: tl.constexpr):
    """Scores (TILE,), -inf on text, and values (TILE, DP), 0 on text, of rows first.. of a request."""
    row = first + tl.arange(0, shape.TILE)
    there = row < count
    p = tl.load(new.prior + start + row, mask=there, other=float("nan"))
    visual = p == p
    at = (start + row).to(tl.int64)[:, None] * new.v_strides[0] + g * new.v_strides[1] + d[None, :]
    x = tl.load(new.v + at, mask=visual[:, None] & d_in[None, :], other=0.0).to(tl.float32)
    return tl.where(visual, p, -float("inf")), x


@triton.jit(do_not_specialize=["requests"])
def totals_kernel(new, sums, requests, shape: tl.constexpr):
    """Sums of segments. Grid (`programs_for`, KV heads)."""
    pid = tl.program_id(0)
    g = tl.program_id(1)
    b, segment = request_of(new.starts, requests, pid, shape.SEGMENT)
    start = tl.load(new.starts + b)
    count = tl.load(new.starts + b + 1) - start
    if segment * shape.SEGMENT >= count:
        return
    d = tl.arange(0, shape.DP)
    d_in = d < shape.D
    top = -float("inf")
    weight = tl.zeros([shape.TILE], tl.float32)
    acc = tl.zeros([shape.TILE, shape.DP], tl.float32)
    for first in range(segment * shape.SEGMENT, tl.minimum((segment + 1) * shape.SEGMENT, count), shape.TILE):
        p, x = _rows(new, start, count, first, g, d, d_in, shape)
        higher = tl.maximum(top, tl.max(p, 0))
        w = tl.exp(p - finite(higher))
        fade = tl.exp(top - finite(higher))
        acc = acc * fade + w[:, None] * x  # summed up over the tile once, behind the loop
        weight = weight * fade + w
        top = higher
    tl.store(sums.part + (pid * tl.num_programs(1) + g).to(tl.int64) * shape.D + d, tl.sum(acc, 0), mask=d_in)
    if g == 0:
        tl.store(sums.top + pid, top)
        tl.store(sums.mass + pid, tl.sum(weight, 0))


@triton.jit
def _in_front(sums, pid, segment, g, top, mass, acc, d, d_in, shape: tl.constexpr):
    """A carried sum (top, mass, acc (DP,)) with the segments of the same request in front of this one."""
    heads = tl.num_programs(1)
    for first in range(pid - segment, pid, shape.TOGETHER):
        at = first + tl.arange(0, shape.TOGETHER)
        there = at < pid
        tops = tl.load(sums.top + at, mask=there, other=-float("inf"))
        masses = tl.load(sums.mass + at, mask=there, other=0.0)
        to = (at * heads + g).to(tl.int64)[:, None] * shape.D + d[None, :]
        parts = tl.load(sums.part + to, mask=there[:, None] & d_in[None, :], other=0.0)
        higher = tl.maximum(top, tl.max(tops, 0))
        w = tl.exp(tops - finite(higher))
        fade = tl.exp(top - finite(higher))
        acc = acc * fade + tl.sum(w[:, None] * parts, 0)
        mass = mass * fade + tl.sum(w * masses, 0)
        top = higher
    return top, mass, acc


@triton.jit
def _carried(rows, cache, summary, sums, b, segment, g, d, d_in, shape: tl.constexpr):
    """The carry of a request as a sum; the first segment notes it in row n + b."""
    log, mean = read_summary(cache, summary, b, g, d, d_in, shape.SIZE, shape.CARRY)
    if segment == 0:
        row = (rows + b).to(tl.int64)
        tl.store(sums.mean + (row * tl.num_programs(1) + g) * shape.D + d, mean, mask=d_in)
        if g == 0:
            tl.store(sums.log_mass + row, log)
    return log, tl.where(log == -float("inf"), 0.0, 1.0), mean


@triton.jit(do_not_specialize=["rows", "requests"])
def running_kernel(new, cache, summary, sums, rows, requests, shape: tl.constexpr):
    """Sums up to every visual row. Grid as that of `totals_kernel`."""
    pid = tl.program_id(0)
    g = tl.program_id(1)
    heads = tl.num_programs(1)
    b, segment = request_of(new.starts, requests, pid, shape.SEGMENT)
    start = tl.load(new.starts + b)
    count = tl.load(new.starts + b + 1) - start
    if segment * shape.SEGMENT >= tl.maximum(count, 1):
        return
    d = tl.arange(0, shape.DP)
    d_in = d < shape.D
    top, mass, acc = _carried(rows, cache, summary, sums, b, segment, g, d, d_in, shape)
    top, mass, acc = _in_front(sums, pid, segment, g, top, mass, acc, d, d_in, shape)
    t = tl.arange(0, shape.TILE)
    for first in range(segment * shape.SEGMENT, tl.minimum((segment + 1) * shape.SEGMENT, count), shape.TILE):
        p, x = _rows(new, start, count, first, g, d, d_in, shape)
        if tl.max(p, 0) > -float("inf"):
            below = t[None, :] <= t[:, None]
            tops = tl.maximum(tl.max(tl.where(below, p[None, :], -float("inf")), 1), top)  # of each row
            w = tl.exp(tl.where(below, p[None, :] - finite(tops)[:, None], -float("inf")))
            fade = tl.exp(top - finite(tops))
            masses = mass * fade + tl.sum(w, 1)
            means = tl.dot(w, x, fade[:, None] * acc[None, :], input_precision="ieee")
            row = (start + first + t).to(tl.int64)
            visual = p > -float("inf")
            log = tops + tl.log(or_one(masses))
            mean = means / or_one(masses)[:, None]
            to = (row * heads + g)[:, None] * shape.D + d[None, :]
            tl.store(sums.mean + to, mean, mask=visual[:, None] & d_in[None, :])
            if g == 0:
                tl.store(sums.log_mass + row, log, mask=visual)
            if new.slots is not None:
                slot = tl.load(new.slots + row, mask=visual, other=-1)
                write_slots(cache, slot, slot >= 0, g, d, d_in, log, mean, shape.SIZE, shape.FORMAT)
            last = t == shape.TILE - 1
            top = tl.max(tops, 0)
            mass = tl.sum(tl.where(last, masses, 0.0), 0)
            acc = tl.sum(tl.where(last[:, None], means, 0.0), 0)


def running_sums(
    sums: RunningSums,
    prior: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    cache: PagedCache,
    carry: torch.Tensor | SummaryTable,
    slots: torch.Tensor | None = None,
) -> None:
    """Summaries up to every visual row of a step's requests, for `triton_prefill`, and into the cache. Two launches.

    Args:
        sums: filled.
        prior: of the rows, float32 (n,), NaN on text. v: (n, Hkv, D), stride 1 in D.
        starts: first row of each request, int32 (R + 1,).
        cache: of the layer.
        carry: what each request brings from earlier steps: slots of the cache, int64 (R,) as `Text.carry`, or a table; -1 for
            nothing.
        slots: where rows leave their summary in the cache, flat, int64 (n,), -1 for nowhere; None for layers with all keys.
    """
    rows, kv_heads, d = v.shape
    requests = len(starts) - 1
    table = None if isinstance(carry, torch.Tensor) else carry
    summary = summary_args(None, carry) if isinstance(carry, torch.Tensor) else summary_args(carry, carry.place)
    kind = cache.format if table is None else "table"
    dp = triton.next_power_of_2(d)
    shape = SumShape(d, dp, cache.k.shape[2], 16, kind, cache.format, SEGMENT, TOGETHER)
    new = _New(prior, v, starts, slots, v.stride()[:2])
    to = _Sums(sums.log_mass, sums.mean, sums.top, sums.mass, sums.part)
    grid = (programs_for(rows, requests, SEGMENT), kv_heads)
    totals_kernel[grid](new, to, requests, shape, num_warps=4)
    running_kernel[grid](new, cache_args(cache), summary, to, rows, requests, shape, num_warps=4)
