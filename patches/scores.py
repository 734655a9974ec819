"""Scores rules: how the prior numbers w of an image become pre-softmax scores p."""

from __future__ import annotations

import torch

from .plan import Plan


def shape_prior(w: torch.Tensor, plan: Plan) -> torch.Tensor:
    """What the plan's scores rule makes of one image's prior, before anything that needs measured scores.

    Args:
        w: prior numbers of one image's visual tokens, float32 (n,).

    Returns:
        (n,) float32: w itself (`raw`), its softmax (`prob`, `prob_rescaled`) or log-softmax (`log`), with temperature.
    """
    if plan.scores == "raw":
        return w
    if plan.scores == "log":
        return torch.log_softmax(w / plan.temperature, -1)
    return torch.softmax(w / plan.temperature, -1)


def rescale_unit(p: torch.Tensor) -> torch.Tensor:
    """Divide by twice the absolute mean, so that times |mean raw score| it is what the authors' LLaVA code injects."""
    return p / (2 * p.mean().abs())


def mean_raw_score(q: torch.Tensor, k: torch.Tensor, scale: float, keep: torch.Tensor | None) -> torch.Tensor:
    """|mean of all raw scores of a layer| per sample: all heads, query rows and keys, before the causal mask.

    The mean of a score matrix needs no score matrix: sum_ij q_i.k_j = (sum_i q_i).(sum_j k_j).

    Args:
        q: (B, H, Sq, D).
        k: (B, Hkv, K, D).
        keep: keys that are no padding, bool (B, K), or None. Padding does not count (in the authors' code it does).

    Returns:
        (B,) float32, or float64 for float64 input.
    """
    batch, num_heads, rows, _ = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    dtype = torch.promote_types(q.dtype, torch.float32)
    if keep is None:
        q_sum, k_sum = q.sum(2, dtype=dtype), k.sum(2, dtype=dtype)
        count = torch.full((batch,), float(rows * keys), device=q.device, dtype=dtype)
    else:
        of_rows = keep[:, keys - rows :]
        q_sum = (q.to(dtype) * of_rows[:, None, :, None]).sum(2)
        k_sum = (k.to(dtype) * keep[:, None, :, None]).sum(2)
        count = (of_rows.sum(-1) * keep.sum(-1)).to(dtype)
    q_sum = q_sum.unflatten(1, (kv_heads, num_heads // kv_heads)).sum(2)
    return (q_sum * k_sum).sum((1, 2)).abs() * scale / (count * num_heads)
