# mypy: allow-untyped-defs, allow-incomplete-defs
"""Attention of all rows that a step brings, of several requests, over text keys in the paged cache and one summary for each row.

The step's own keys have been written to the cache. A row sees the text up to its position, and the visual tokens up to it as one
key of score log Z + level[h] and value m (`triton_summaries`): DESIGN 2, closed form. The heads of a KV head stand under each
other in a tile of rows, so that a key is read once for all of them; outputs are written once, joined with the summaries.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .triton_attend import RowArgs, attend
from .triton_common import (
    LOG2E,
    PagedCache,
    architecture,
    cache_args,
    factors,
    fp8_mode,
    or_one,
    programs_for,
    request_of,
    widened,
)
from .triton_prepare import Text, text_args
from .triton_slots import merged
from .triton_summaries import RunningSums
from .triton_tiles import prefill_tile

UNITS = 1024  # whose positions are looked at at once


class PrefillShape(NamedTuple):
    """Constants: as in `DecodeShape`; TOKENS of a tile of ROWS (token, head) rows, UNITS looked at at once."""

    G: int
    D: int
    DP: int
    SIZE: int
    UNIT: int
    TILE: int
    ROWS: int
    TOKENS: int
    UNITS: int
    FP8: int
    STAGES: int
    WIDE: bool
    CAUSAL: bool


class _Batch(NamedTuple):
    """First rows (R + 1,), lengths (R,), and which summary each row sees (n,)."""

    starts: Any
    lengths: Any
    seen: Any


class _Sums(NamedTuple):
    log_mass: Any
    mean: Any


def specify_prefill(
    q: torch.Tensor,
    cache: PagedCache,
    text: Text,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    sums: RunningSums,
    seen: torch.Tensor,
    level: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """The formula, in float64: (n, H, D), 0 for rows of no request. Arguments as in `prefill`."""
    q, k, v, level = (x.double() for x in (q, cache.k.float(), cache.v.float(), level))
    out, group, unit, per = torch.zeros_like(q), q.shape[1] // k.shape[1], text.unit, text.size // text.unit
    for b, length in enumerate(lengths.tolist()):
        units = [[int(x[b, i]) for x in (text.blocks, text.at, text.words)] for i in range(int(text.count[b]))]
        keys = [(u // per, u % per * unit + s, at * unit + s) for u, at, w in units for s in range(unit) if w >> s & 1]
        for row in range(int(starts[b]), int(starts[b + 1])):
            position, last = length - int(starts[b + 1]) + row, int(seen[row])
            for h in range(q.shape[1]):
                g = h // group
                scores = [scale * (q[row, h] @ k[block, g, s]) for block, s, at in keys if at <= position]
                values = [v[block, g, s] for block, s, at in keys if at <= position]
                if last >= 0:
                    scores.append(sums.log_mass[last].double() + level[h])
                    values.append(sums.mean[last, g].double())
                out[row, h] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out


@triton.jit
def _units_up_to(text, b, limit, shape: tl.constexpr):
    """Text units of a request that begin at or below position `limit`."""
    count = tl.load(text.count + b)
    at = text.at + b.to(tl.int64) * text.stride
    result = 0
    for first in range(0, count, shape.UNITS):
        i = first + tl.arange(0, shape.UNITS)
        begin = tl.load(at + i, mask=i < count, other=2147483647 // shape.UNIT)
        result += tl.sum((begin * shape.UNIT <= limit).to(tl.int32), 0)
    return tl.minimum(result, count)


@triton.jit(do_not_specialize=["requests"])
def prefill_kernel(rows, cache, text, sums, batch, requests, level, wanted, scale, shape: tl.constexpr):
    """Grid (`programs_for` with TOKENS, KV heads); long rows, which are the last of a request, begin first."""
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    g = tl.program_id(1)
    b, block = request_of(batch.starts, requests, pid, shape.TOKENS)
    start = tl.load(batch.starts + b)
    count = tl.load(batch.starts + b + 1) - start
    if (block < 0) | (block * shape.TOKENS >= count):
        return
    r = tl.arange(0, shape.ROWS)
    d = tl.arange(0, shape.DP)
    d_in = d < shape.D
    token = block * shape.TOKENS + r // shape.G
    head = g * shape.G + r % shape.G
    row_in = (r < shape.TOKENS * shape.G) & (token < count)
    if wanted is not None:
        row_in = row_in & (tl.load(wanted + head) != 0)
        if tl.max(row_in.to(tl.int32), 0) == 0:
            return
    past = tl.load(batch.lengths + b) - count
    row = (start + token).to(tl.int64)
    at = row[:, None] * rows.q_strides[0] + head[:, None] * rows.q_strides[1] + d[None, :]
    query = tl.load(rows.q + at, mask=row_in[:, None] & d_in[None, :], other=0.0)
    factor, grow = factors(cache, g, scale, shape.FP8)
    units = _units_up_to(text, b, past + tl.minimum((block + 1) * shape.TOKENS, count) - 1, shape)
    tiles = tl.cdiv(units * shape.UNIT, shape.TILE)
    top, mass, acc = attend(query, cache, text, b, g, 0, tiles, factor, past + token, d, d_in, shape)
    acc = acc * (grow / or_one(mass))[:, None]
    lse = top + tl.log2(or_one(mass))
    last = tl.load(batch.seen + row, mask=row_in, other=-1)  # 32 bits do for a million rows, and take fewer registers
    log = tl.load(sums.log_mass + last, mask=last >= 0, other=-float("inf"))
    if level is not None:
        log += tl.load(level + head)
    to = (last * tl.num_programs(1) + g)[:, None] * shape.D + d[None, :]
    mean = tl.load(sums.mean + to, mask=(last >= 0)[:, None] & d_in[None, :], other=0.0)
    acc = merged(acc, lse, mean, log * LOG2E)
    to = row[:, None] * rows.o_strides[0] + head[:, None] * rows.o_strides[1] + d[None, :]
    tl.store(rows.out + to, acc.to(rows.out.dtype.element_ty), mask=row_in[:, None] & d_in[None, :])


def prefill(
    out: torch.Tensor,
    q: torch.Tensor,
    cache: PagedCache,
    text: Text,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    sums: RunningSums,
    seen: torch.Tensor,
    scale: float,
    level: torch.Tensor | None = None,
    wanted: torch.Tensor | None = None,
) -> None:
    """Patched heads of all rows of a step's requests. One launch, nothing is read on the host.

    Args:
        out: filled, (n, H, D), stride 1 in D; rows of no request and heads that are not wanted stay as they are.
        q: (n, H, D), stride 1 in D, float32, float16 or bfloat16.
        cache: of the layer, with the text keys and values of these rows; text: of the step.
        starts: first row of each request, int32 (R + 1,); a request without rows, starts[i] == starts[i + 1], is left out: so
            `decode` can have the decode rows of a step, and no buffer is cut. lengths: tokens after the step, int32 (R,).
        sums: of `running_sums`; seen: of `prepare_rows`, int32 (n,).
        scale: factor of q.k.
        level: added to the log mass for each query head, float32 (H,), or None.
        wanted: patched heads, int8 or bool (H,), or None for all.
    """
    count, heads, d = q.shape
    requests, kv_heads = len(lengths), cache.k.shape[1]
    group = heads // kv_heads
    tile = prefill_tile(q.dtype, cache.k.dtype, d, -(-count // requests) * group, architecture())
    tokens, keys = tile.rows // group, max(tile.keys, text.unit)
    shape = PrefillShape(
        group,
        d,
        triton.next_power_of_2(d),
        text.size,
        text.unit,
        keys,
        tile.rows,
        tokens,
        UNITS,
        fp8_mode(cache),
        tile.stages,
        widened(q.dtype),
        True,
    )
    prefill_kernel[(programs_for(count, requests, tokens), kv_heads)](
        RowArgs(out, q, out.stride()[:2], q.stride()[:2]),
        cache_args(cache),
        text_args(text),
        _Sums(sums.log_mass, sums.mean),
        _Batch(starts, lengths, seen),
        requests,
        level,
        wanted if wanted is None else wanted.view(torch.int8),
        scale,
        shape,
        num_warps=tile.warps,
    )
