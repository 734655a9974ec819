# mypy: allow-untyped-defs, allow-incomplete-defs
"""Attention of one query row per request over the text of a paged KV cache and one summary of its images, in one launch.

A patched query head h of KV head g sees every text token t as an ordinary key (score scale q_h.k[t, g], value v[t, g]) and the
visual tokens of its request as one key of score log Z + level[h] and value m, with Z = sum exp(p_j), m = sum exp(p_j) v_j / Z:
DESIGN 2, closed form. The paper's prior p_j (section 4) does not depend on the query.

Slots that hold no text are not read, whatever they hold. Long texts are split over programs, and the last program of a request
and KV head to come home joins the parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .triton_attend import RowArgs, attend
from .triton_common import LOG2E, PagedCache, cache_args, factors, finite, fp8_mode, or_one, widened
from .triton_prepare import Text, text_args
from .triton_slots import SummaryTable, merged, read_summary, summary_args
from .triton_tiles import decode_tile


class DecodeShape(NamedTuple):
    """Constants of a compiled kernel: group G, head size D and its next power DP, slots of a block and of a unit, keys of a
    tile, rows of a dot, splits and their next power, how e4m3 and summaries are read, pipeline stages,
    operands of dots, and that a row sees every key."""

    G: int
    D: int
    DP: int
    SIZE: int
    UNIT: int
    TILE: int
    ROWS: int
    SPLITS: int
    SP: int
    FP8: int
    FORMAT: str
    STAGES: int
    WIDE: bool
    CAUSAL: bool


@dataclass(frozen=True)
class DecodeScratch:
    """Parts of split texts, for one number of requests; layers that run one after the other share it.

    Attributes:
        part: float32 (requests, H, splits, D). lse: float32 (requests, H, splits), base 2.
        done: int32 (requests, Hkv), zero between launches.
    """

    part: torch.Tensor
    lse: torch.Tensor
    done: torch.Tensor

    @classmethod
    def of(
        cls, requests: int, heads: int, kv_heads: int, d: int, splits: int, device: torch.device | str
    ) -> DecodeScratch:
        """Buffers for so many requests and splits."""
        part = torch.empty(requests, heads, splits, d, dtype=torch.float32, device=device)
        done = torch.zeros(requests, kv_heads, dtype=torch.int32, device=device)
        return cls(part, torch.empty_like(part[..., 0]), done)

    @property
    def splits(self) -> int:
        """Programs among which a text is divided at most."""
        return self.part.shape[2]


class _Parts(NamedTuple):
    part: Any
    lse: Any
    done: Any


def specify_decode(
    q: torch.Tensor,
    cache: PagedCache,
    text: Text,
    log_mass: torch.Tensor,
    mean: torch.Tensor,
    level: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """The formula, in float64.

    Args:
        q: (R, H, D). log_mass: (R,), -inf for requests without an image. mean: (R, Hkv, D). level: (H,).

    Returns:
        (R, H, D); 0 for requests that see nothing.
    """
    q, log_mass, mean, level = (x.double() for x in (q, log_mass, mean, level))
    k, v = (x.to(torch.float32).double() for x in (cache.k, cache.v))
    if cache.k_scale is not None and cache.v_scale is not None:
        k, v = k * cache.k_scale.double()[:, None, None], v * cache.v_scale.double()[:, None, None]
    out, group, per = torch.zeros_like(q), q.shape[1] // k.shape[1], text.size // text.unit
    for b in range(len(q)):
        units = [(int(text.blocks[b, i]), int(text.words[b, i])) for i in range(int(text.count[b]))]
        slots = [(u // per, u % per * text.unit + s) for u, word in units for s in range(text.unit) if word >> s & 1]
        for h in range(q.shape[1]):
            g = h // group
            scores = [scale * (q[b, h] @ k[block, g, s]) for block, s in slots]
            values = [v[block, g, s] for block, s in slots]
            if log_mass[b] > -torch.inf:
                scores.append(log_mass[b] + level[h])
                values.append(mean[b, g])
            if scores:
                out[b, h] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out


@triton.jit
def _join(parts, line, used, row_in, d, d_in, shape: tl.constexpr):
    """The parts of all splits: (lse (ROWS,), out (ROWS, DP)). Read past the first-level cache: other programs wrote them."""
    s = tl.arange(0, shape.SP)
    there = row_in[:, None] & (s < used)[None, :]
    logs = tl.load(parts.lse + line[:, None] + s[None, :], mask=there, other=-float("inf"), cache_modifier=".cg")
    top = tl.max(logs, 1)
    mass = or_one(tl.sum(tl.exp2(logs - finite(top)[:, None]), 1))
    acc = tl.zeros([shape.ROWS, shape.DP], tl.float32)
    whole = row_in[:, None] & d_in[None, :]
    for i in tl.range(0, used, num_stages=1):
        log = tl.load(parts.lse + line + i, mask=row_in, other=-float("inf"), cache_modifier=".cg")
        at = (line + i)[:, None] * shape.D + d[None, :]
        part = tl.load(parts.part + at, mask=whole, other=0.0, cache_modifier=".cg")
        acc += (tl.exp2(log - finite(top)) / mass)[:, None] * part
    return top + tl.log2(mass), acc


@triton.jit
def _finish(rows, cache, summary, level, b, g, lse, acc, head, row_in, d, d_in, shape: tl.constexpr):
    """Join the text part with the summary and write the rows."""
    mass, mean = read_summary(cache, summary, b, g, d, d_in, shape.SIZE, shape.FORMAT)
    log = tl.zeros([shape.ROWS], tl.float32) + mass
    if level is not None:
        log += tl.load(level + head, mask=row_in, other=0.0)
    acc = merged(acc, lse, mean[None, :], log * LOG2E)
    to = rows.out + b.to(tl.int64) * rows.o_strides[0] + head[:, None] * rows.o_strides[1] + d[None, :]
    tl.store(to, acc.to(rows.out.dtype.element_ty), mask=row_in[:, None] & d_in[None, :])


@triton.jit
def decode_kernel(rows, cache, text, summary, level, wanted, parts, scale, shape: tl.constexpr):
    """Grid (KV heads, splits, requests)."""
    g = tl.program_id(0)
    split = tl.program_id(1)
    b = tl.program_id(2)
    r = tl.arange(0, shape.ROWS)
    d = tl.arange(0, shape.DP)
    d_in = d < shape.D
    head = g * shape.G + r
    row_in = r < shape.G
    if wanted is not None:
        row_in = row_in & (tl.load(wanted + head, mask=row_in, other=0) != 0)
        if tl.max(row_in.to(tl.int32), 0) == 0:
            return
    tiles = tl.cdiv(tl.load(text.count + b) * shape.UNIT, shape.TILE)
    per = tl.maximum(tiles, 1)
    if shape.SPLITS > 1:
        per = tl.maximum(tl.maximum(tl.cdiv(tiles, shape.SPLITS), tl.cdiv(tl.load(text.least), shape.TILE)), 1)
        if (split > 0) & (split * per >= tiles):
            return
    at = b.to(tl.int64) * rows.q_strides[0] + head[:, None] * rows.q_strides[1] + d[None, :]
    query = tl.load(rows.q + at, mask=row_in[:, None] & d_in[None, :], other=0.0)
    factor, grow = factors(cache, g, scale, shape.FP8)
    end = tl.minimum((split + 1) * per, tiles)
    top, mass, acc = attend(query, cache, text, b, g, split * per, end, factor, head, d, d_in, shape)
    acc = acc * (grow / or_one(mass))[:, None]
    lse = top + tl.log2(or_one(mass))
    if shape.SPLITS == 1:
        _finish(rows, cache, summary, level, b, g, lse, acc, head, row_in, d, d_in, shape)
    else:
        kv_heads = tl.num_programs(0)
        line = (b.to(tl.int64) * kv_heads * shape.G + head) * shape.SPLITS
        whole = row_in[:, None] & d_in[None, :]
        tl.store(parts.part + (line + split)[:, None] * shape.D + d[None, :], acc, mask=whole)
        tl.store(parts.lse + line + split, lse, mask=row_in)
        used = tl.maximum(tl.cdiv(tiles, per), 1)
        done = parts.done + b * kv_heads + g
        tl.debug_barrier()  # every thread has stored before one of them tells
        if tl.atomic_add(done, 1, sem="acq_rel", scope="gpu") == used - 1:
            lse, acc = _join(parts, line, used, row_in, d, d_in, shape)
            _finish(rows, cache, summary, level, b, g, lse, acc, head, row_in, d, d_in, shape)
            tl.store(done, 0)  # ready for the next launch


def decode_splits(requests: int, kv_heads: int, most_keys: int, programs: int) -> int:
    """Splits for a number of requests, from sizes alone, so that a captured graph keeps them.

    Args:
        most_keys: that a request can have; programs: wanted in all.
    """
    return max(1, min(-(-programs // (requests * kv_heads)), -(-most_keys // 64), 64))


def decode(
    out: torch.Tensor,
    q: torch.Tensor,
    cache: PagedCache,
    text: Text,
    scratch: DecodeScratch,
    scale: float,
    level: torch.Tensor | None = None,
    wanted: torch.Tensor | None = None,
    table: SummaryTable | None = None,
) -> None:
    """Attention of the patched heads of one row per request. One launch, nothing is read on the host.

    Args:
        out: filled, (R, H, D), stride 1 in D; heads that are not wanted stay as they are.
        q: (R, H, D), stride 1 in D, float32, float16 or bfloat16.
        cache: of the layer; text: of the step, its first R requests, or more, are those of the rows.
        scratch: for at least R requests, of these heads; its number of splits is taken.
        scale: factor of q.k.
        level: added to the log mass for each query head (calibrated levels of the plan), float32 (H,), or None.
        wanted: patched heads, int8 or bool (H,), or None for all.
        table: summaries of the requests; None: they lie in the cache, in the slots `text.summary`.
    """
    requests, heads, d = q.shape
    kv_heads = cache.k.shape[1]
    group, fp8 = heads // kv_heads, fp8_mode(cache)
    tile = decode_tile(q.dtype, cache.k.dtype, d)
    rows, splits = max(16, triton.next_power_of_2(group)), scratch.splits
    shape = DecodeShape(
        group,
        d,
        triton.next_power_of_2(d),
        text.size,
        text.unit,
        max(tile.keys, text.unit),
        rows,
        splits,
        triton.next_power_of_2(splits),
        fp8,
        "table" if table else cache.format,
        tile.stages,
        widened(q.dtype),
        False,
    )
    decode_kernel[(kv_heads, splits, requests)](
        RowArgs(out, q, out.stride()[:2], q.stride()[:2]),
        cache_args(cache),
        text_args(text),
        summary_args(table, text.summary),
        level,
        wanted if wanted is None else wanted.view(torch.int8),
        _Parts(scratch.part, scratch.lse, scratch.done),
        scale,
        shape,
        num_warps=tile.warps,
    )
