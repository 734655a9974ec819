"""FLOPs of the decoder's attention in prefill, and those that a plan saves."""

from __future__ import annotations

from ..patches.decoder import DecoderLayer
from ..patches.plan import Plan
from .byte_model import saves
from .shape import Shape


def attention_flops(shape: Shape, tokens: int) -> float:
    """FLOPs of the two products (scores, values) over the causal half, all layers with attention and all heads."""
    return sum(_layer_flops(shape.heads, layer, tokens) for layer in shape.every)


def _layer_flops(heads: int, layer: DecoderLayer, keys: int) -> float:
    seen = keys if layer.window is None else min(layer.window, keys)
    pairs = seen * (seen + 1) / 2 + (keys - seen) * seen
    return heads * 4 * layer.head_dim * pairs if layer.attends else 0.0


def attention_flops_saved(shape: Shape, plan: Plan | None, tokens: int, visual: int, after: int) -> float:
    """Of these, what patched heads need not compute: scores and values of visual keys.

    Args:
        tokens: of the request. visual: of its one image. after: text tokens behind it.

    Returns:
        0 for plans without closed form. The running sum of the values, once per KV head, is taken off. Layers whose window
        the request outgrows count as if they saved nothing; images whose tokens see each other both ways count as causal.
    """
    if plan is None or not saves(plan):
        return 0.0
    saved, rows = 0.0, visual if plan.queries == "all" else 0
    for index, heads in plan.heads.items():
        layer = shape.every[index]
        if layer.window is None or tokens <= layer.window:
            touched = len({h * layer.kv_heads // plan.num_heads for h in heads})
            saved += flops_of_visual_keys(layer.head_dim, len(heads), touched, rows, visual, after)
    return max(saved, 0.0)


def flops_of_visual_keys(head_dim: int, heads: int, kv_heads: int, rows: int, visual: int, after: int) -> float:
    """FLOPs of scores and values of visual keys, less those of the running sum of the values, once per KV head.

    Args:
        heads, kv_heads: query heads of a layer and the KV heads that serve them.
        rows: visual tokens among the query rows. visual: among the keys. after: text rows behind them.
    """
    pairs = rows * (rows + 1) / 2 + after * visual
    return heads * pairs * 4 * head_dim - kv_heads * visual * 2 * head_dim
