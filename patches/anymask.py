"""SAP attention for any mask, differentiable, on any SDPA kernel: the prior rides in extra coordinates of the keys."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from .attention_inputs import AttentionInputs
from .eager import eager_attention, heads_4d

# Up to this many query rows a written-out score row is cheaper than copying the keys to widen them.
FEW_ROWS = 8
# Prior scores up to here are finite in float16 beside any score of text.
FLOAT16_SAFE = 2.0**14


def any_mask_attention(inputs: AttentionInputs) -> torch.Tensor:
    """Same meaning as `eager.eager_attention` for any mask, rows, blend and per-sample heads; keeps no S x S scores.

    Patched rows in half precision carry the prior in three coordinates (high, middle, low part), as exact as float32.

    Returns:
        (B, H, Sq, Dv).
    """
    if inputs.q.shape[2] <= FEW_ROWS:
        return eager_attention(inputs)[0]
    if inputs.q.dtype == torch.float16 and _too_wide(inputs):
        wide = replace(inputs, q=inputs.q.float(), k=inputs.k.float(), v=inputs.v.float())
        return any_mask_attention(wide).to(torch.float16)
    heads = inputs.head_list()
    out = plain(inputs, inputs.q, inputs.may_see() if _needs_mask(inputs) else None)
    first, last = _row_span(inputs)
    if not heads or first == last:
        return out
    if last - first <= FEW_ROWS:
        return torch.cat([out[:, :, :first], eager_attention(_only_rows(inputs, first, last))[0], out[:, :, last:]], 2)
    patched = _patched_rows(inputs, heads, first, last)
    old = out[:, heads, first:last]
    if inputs.heads.dim() == 2:
        patched = torch.where(heads_4d(inputs.heads[:, heads]), patched, old)
    if inputs.rows is not None:
        patched = torch.where(inputs.rows[:, None, first:last, None], patched, old)
    # Built anew, not written in place: autograd needs the parts.
    index = torch.tensor(heads, device=out.device)
    tail = out[:, :, first:last].index_copy(1, index, patched)
    return torch.cat([out[:, :, :first], tail, out[:, :, last:]], 2)


def _too_wide(inputs: AttentionInputs) -> bool:
    """Whether a prior score comes near the largest number of float16, in which kernels may keep scores."""
    top = inputs.scores.of_groups().nan_to_num(0.0).abs().amax()
    if inputs.scores.level is not None:
        top = top + inputs.scores.level.abs().amax()
    return bool(top > FLOAT16_SAFE)


def plain(inputs: AttentionInputs, q: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Ordinary attention of rows q (B, H, R, D); mask None means causal with as many rows as keys, or one row."""
    return masked(q, inputs.k, inputs.v, inputs.scale, mask)


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: torch.Tensor | None) -> torch.Tensor:
    """The same of any keys and values (B, g, K, D)."""
    if mask is not None and q.device.type == "cuda":  # grouped heads with a mask would fall to the slow math kernel
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    return F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=mask is None and q.shape[2] > 1, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
    )


def _only_rows(inputs: AttentionInputs, first: int, last: int) -> AttentionInputs:
    """The same inputs for query rows [first, last) alone."""
    rows = None if inputs.rows is None else inputs.rows[:, first:last]
    return replace(inputs, q=inputs.q[:, :, first:last], mask=inputs.may_see()[..., first:last, :], rows=rows)


def _needs_mask(inputs: AttentionInputs) -> bool:
    """False where SDPA's own causal flag means the same."""
    return inputs.mask is not None or 1 < inputs.q.shape[2] < inputs.k.shape[2]


def _row_span(inputs: AttentionInputs) -> tuple[int, int]:
    """Smallest range of query rows that holds every patched row of every sample."""
    if inputs.rows is None:
        return 0, inputs.q.shape[2]
    hit = inputs.rows.any(0).nonzero()[:, 0].tolist()
    return (hit[0], hit[-1] + 1) if hit else (0, 0)


def _patched_rows(inputs: AttentionInputs, heads: list[int], first: int, last: int) -> torch.Tensor:
    """Rows [first, last) of the listed heads, all of them patched: (B, len(heads), last - first, Dv)."""
    group = inputs.q.shape[1] // inputs.k.shape[1]
    kv = [h // group for h in heads]
    q = inputs.q[:, heads, first:last]
    mask = inputs.may_see()[..., first:last, :]
    if mask.shape[1] > 1:
        mask = mask[:, heads]
    extra_q, extra_k = _extra_coordinates(inputs, heads)
    keep = torch.where(inputs.scores.visual, 1 - inputs.blend, 1.0).to(q.dtype)
    k = torch.cat([inputs.k[:, kv] * keep[:, None, :, None], extra_k.expand(-1, len(heads), -1, -1)], -1)
    q = torch.cat([q, extra_q.expand(q.shape[0], -1, last - first, -1)], -1)
    v = F.pad(inputs.v[:, kv], (0, q.shape[-1] - inputs.v.shape[-1]))
    out = F.scaled_dot_product_attention(q, k, v, mask, scale=inputs.scale)
    return out[..., : inputs.v.shape[-1]]


def _extra_coordinates(inputs: AttentionInputs, heads: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates whose product is blend * p / scale: for queries (1, h, 1, E), for keys (B, 1 or h, K, E), E a multiple of 8."""
    scores, q = inputs.scores, inputs.q
    prior = scores.of_groups().nan_to_num(0.0)
    prior = prior[:, None] if prior.dim() == 2 else prior[:, [h * inputs.k.shape[1] // q.shape[1] for h in heads]]
    parts = 1 if q.dtype in (torch.float32, torch.float64) else 3
    # a power of two in the queries keeps p / scale within half precision's range, and is exact
    unit = 2.0 ** round(-math.log2(inputs.scale))
    key_columns = _split(prior * (inputs.blend / inputs.scale / unit), q.dtype, parts)
    query_columns = [torch.full((len(heads),), unit, device=q.device, dtype=q.dtype)] * parts
    if scores.level is not None:
        takes = scores.visual if scores.exact is None else scores.visual & ~scores.exact
        key_columns += [takes.to(q.dtype)[:, None].expand_as(prior)] * parts
        query_columns += _split(scores.level[heads] * (inputs.blend / inputs.scale), q.dtype, parts)
    pad = -len(key_columns) % 8
    extra_k = F.pad(torch.stack(key_columns, -1), (0, pad))
    extra_q = F.pad(torch.stack(query_columns, -1), (0, pad))[None, :, None]
    return extra_q, extra_k


def _split(x: torch.Tensor, dtype: torch.dtype, parts: int) -> list[torch.Tensor]:
    """x as a sum of `parts` tensors of a shorter dtype."""
    out = []
    for _ in range(parts):
        out.append(x.to(dtype))
        x = x - out[-1].to(x.dtype)
    return out
