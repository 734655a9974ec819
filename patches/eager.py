"""SAP attention as the definition reads: every score, then the replacement, mask, softmax, values. The oracle."""

from __future__ import annotations

import torch

from .attention_inputs import AttentionInputs


def eager_attention(inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention with ``s' = (1-lambda) q.k scale + lambda p`` on patched rows, heads and visual keys.

    Any dtype; the softmax runs in float32 or, for float64 input, in float64.

    Returns:
        output (B, H, Sq, Dv) and attention weights (B, H, Sq, K), both in the dtype of q.
    """
    scores = raw_scores(inputs.q, inputs.k, inputs.scale)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # p would lose digits in half precision
    p = inputs.scores.dense(inputs.q.shape[1]).to(scores.dtype)[:, :, None]  # (B, H or 1, 1, K)
    where = inputs.scores.visual[:, None, None] & heads_4d(inputs.heads)
    if inputs.rows is not None:
        where = where & inputs.rows[:, None, :, None]
    replaced = p if inputs.blend == 1.0 else (1 - inputs.blend) * scores + inputs.blend * p
    mask = None if inputs.mask is None and inputs.q.shape[2] == 1 else inputs.may_see()
    return attend(torch.where(where, replaced, scores), mask, inputs.v)


def raw_scores(q: torch.Tensor, k: torch.Tensor, scale: float) -> torch.Tensor:
    """q.k times scale, (B, H, Sq, K), without copying the keys of grouped heads."""
    batch, heads, rows, dim = q.shape
    grouped = q.reshape(batch, k.shape[1], -1, dim) @ k.transpose(-1, -2)
    return grouped.view(batch, heads, rows, k.shape[2]) * scale


def attend(
    scores: torch.Tensor, mask: torch.Tensor | None, v: torch.Tensor, dropout: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask (None: all is seen), softmax, values, dropout. scores (B, H, Sq, K), v (B, Hkv, K, Dv); returns output and weights."""
    if mask is None:
        pass
    elif mask.dtype == torch.bool:
        # finfo.min, not -inf: a row that sees nothing (padding) stays finite and harms no other row
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask.to(scores.dtype)
    exact = torch.float64 if scores.dtype == torch.float64 else torch.float32
    weights = torch.softmax(scores, -1, dtype=exact).to(v.dtype)
    weights = torch.nn.functional.dropout(weights, dropout) if dropout else weights
    batch, heads, rows, keys = weights.shape
    out = weights.reshape(batch, v.shape[1], -1, keys) @ v
    return out.view(batch, heads, rows, v.shape[3]), weights


def heads_4d(heads: torch.Tensor) -> torch.Tensor:
    """(H,) or (B, H) as (1 or B, H, 1, 1)."""
    return heads.view(-1, heads.shape[-1], 1, 1)
