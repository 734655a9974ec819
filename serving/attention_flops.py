"""FLOPs of the decoder's attention in prefill, and those that a plan saves."""

from __future__ import annotations

from ..patches.family import get_family
from ..patches.plan import Plan
from .byte_model import saves
from .shape import Shape


def attention_flops(shape: Shape, tokens: int) -> float:
    """FLOPs of the two products (scores, values) over the causal half, all layers and heads, `tokens` in all."""
    return shape.layers * shape.heads * 4 * shape.head_dim * tokens * (tokens + 1) / 2


def attention_flops_saved(shape: Shape, plan: Plan | None, visual: int, after: int) -> float:
    """Of these, what patched heads need not compute: scores and values of visual keys.

    Args:
        visual: tokens of the one image. after: text tokens behind it.

    Returns:
        0 in families whose image tokens see forward (`Family.plain_causal`), and for plans without closed form. The running
        sum of the values, once per KV head, is taken off.
    """
    if plan is None or not saves(plan) or not get_family(plan.family).plain_causal:
        return 0.0
    heads = sum(len(found) for found in plan.heads.values())
    group = shape.heads // shape.kv_heads
    touched = sum(len({head // group for head in found}) for found in plan.heads.values())
    return flops_of_visual_keys(shape.head_dim, heads, touched, visual if plan.queries == "all" else 0, visual, after)


def flops_of_visual_keys(head_dim: int, heads: int, kv_heads: int, rows: int, visual: int, after: int) -> float:
    """FLOPs of scores and values of visual keys, less those of the running sum of the values, once per KV head.

    Args:
        heads, kv_heads: query heads and the KV heads that serve them, over all layers.
        rows: visual tokens among the query rows. visual: among the keys. after: text rows behind them.
    """
    pairs = rows * (rows + 1) / 2 + after * visual
    return max(heads * pairs * 4 * head_dim - kv_heads * visual * 2 * head_dim, 0.0)
