# mypy: allow-untyped-defs, allow-incomplete-defs
"""Attention over text keys where they lie in a paged cache: the loop that decode steps and prefills have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .triton_common import dot, finite, number


class RowArgs(NamedTuple):
    """Output and query rows as a kernel takes them: pointers, strides of row and head."""

    out: Any
    q: Any
    o_strides: Any
    q_strides: Any


@triton.jit
def attend(query, cache, text, b, g, first, end, factor, position, d, d_in, shape: tl.constexpr):
    """Tiles first..end-1 of the text of request b: largest score (ROWS,) in base 2, mass (ROWS,) relative to it, weighted sum
    (ROWS, DP). With CAUSAL a row sees keys up to its `position` (ROWS,); else that is not looked at."""
    PER: tl.constexpr = shape.SIZE // shape.UNIT
    dtype: tl.constexpr = query.dtype
    empty: tl.constexpr = 0 if shape.FP8 == 2 else 0.0
    k = cache.k + g.to(tl.int64) * cache.k_strides[1]
    v = cache.v + g.to(tl.int64) * cache.v_strides[1]
    blocks = text.blocks + b.to(tl.int64) * text.stride
    words = text.words + b.to(tl.int64) * text.stride
    at = text.at + b.to(tl.int64) * text.stride
    units = tl.load(text.count + b)
    n = tl.arange(0, shape.TILE)
    bit = n % shape.UNIT
    top = tl.full([shape.ROWS], -float("inf"), tl.float32)
    mass = tl.zeros([shape.ROWS], tl.float32)
    acc = tl.zeros([shape.ROWS, shape.DP], tl.float32)
    for tile in tl.range(first, end, num_stages=shape.STAGES):
        m = tile * (shape.TILE // shape.UNIT) + n // shape.UNIT
        unit = tl.load(blocks + m, mask=m < units, other=0)
        word = tl.load(words + m, mask=m < units, other=0)
        seen = ((word >> bit.to(tl.int64)) & 1) != 0
        block = (unit // PER).to(tl.int64)
        slot = unit % PER * shape.UNIT + bit
        inside = seen[:, None]
        if shape.DP != shape.D:
            inside = inside & d_in[None, :]
        to = (block * cache.k_strides[0] + slot * cache.k_strides[2])[:, None] + d[None, :] * cache.k_strides[3]
        key = number(tl.load(k + to, mask=inside, other=empty), shape.FP8, dtype)
        score = dot(query, tl.trans(key), tl.zeros([shape.ROWS, shape.TILE], tl.float32), shape.WIDE) * factor
        if shape.CAUSAL:
            of = tl.load(at + m, mask=m < units, other=0) * shape.UNIT + bit
            score = tl.where(seen[None, :] & (of[None, :] <= position[:, None]), score, -float("inf"))
        else:
            score = tl.where(seen[None, :], score, -float("inf"))
        new = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - finite(new)[:, None])
        fade = tl.exp2(top - finite(new))
        to = (block * cache.v_strides[0] + slot * cache.v_strides[2])[:, None] + d[None, :] * cache.v_strides[3]
        value = number(tl.load(v + to, mask=inside, other=empty), shape.FP8, dtype)
        acc = dot(weight.to(dtype), value, acc * fade[:, None], shape.WIDE)
        mass = mass * fade + tl.sum(weight, 1)
        top = new
    return top, mass, acc
