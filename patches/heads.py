"""Ranking of query heads and the percentile band (paper C.3, "Selecting layers and heads")."""

from __future__ import annotations

import torch

from .plan import Band


def score_ranking(raw: torch.Tensor, text: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
    """Rank heads as the authors' code does: minus the mean raw score of a query row on its non-visual keys.

    Args:
        raw: scaled scores before mask and softmax of one query row, (B, H, K).
        text: visible non-visual keys, bool (B, K).
        before: keys in front of the first visual token, bool (B, K). If given, the mean is the average of the means in
            front of and behind it (the authors' OneVision code). A side without keys does not count; the authors' code
            turns into NaN there and silently patches no head.

    Returns:
        (B, H), float32 or more; low values mark heads that look at text.
    """
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    if before is None:
        return -masked_mean(raw, text)
    front, back = text & before, text & ~before
    has_front, has_back = front.any(-1, keepdim=True), back.any(-1, keepdim=True)
    total = masked_mean(raw, front) * has_front + masked_mean(raw, back) * has_back
    return -total / (has_front.int() + has_back.int()).clamp_min(1)


def mass_ranking(raw: torch.Tensor, text: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Rank heads as the paper says: minus the mean normalised attention of a query row on its non-visual keys.

    Args:
        raw: scaled scores before the mask, (B, H, K).
        text: visible non-visual keys, bool (B, K).
        visible: all keys that the row may see, bool (B, K).

    Returns:
        s_h of paper C.3 for every sample, (B, H).
    """
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    weights = raw.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    # 1 - visual mass instead of the sum over text: a row that sees no visual key then ranks all heads alike to the bit
    on_visual = weights.masked_fill(~(visible & ~text)[:, None], 0).sum(-1)
    return (on_visual - 1) / text.sum(-1, keepdim=True).clamp_min(1)


def in_band(ranking: torch.Tensor, band: Band) -> torch.Tensor:
    """Heads whose ranking lies between the two quantiles (linear interpolation), both ends included.

    Args:
        ranking: (..., H) float.

    Returns:
        bool (..., H).
    """
    at = ranking.new_tensor([band.low, band.high])
    low, high = torch.quantile(ranking, at, dim=-1, keepdim=True)
    return (ranking >= low) & (ranking <= high)


def masked_mean(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Mean of x (B, H, K) over the kept keys (B, K); 0 where none is kept. Returns (B, H)."""
    count = keep.sum(-1, keepdim=True).clamp_min(1)
    return x.masked_fill(~keep[:, None], 0).sum(-1) / count
