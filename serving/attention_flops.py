"""FLOPs of the decoder's attention in prefill, and those that a plan saves."""

from __future__ import annotations

from ..patches.decoder import DecoderLayer
from ..patches.family import get_family
from ..patches.plan import Plan
from .byte_model import saves
from .shape import Shape


def attention_flops(shape: Shape, tokens: int) -> float:
    """FLOPs of the two products (scores, values) over the causal half, or what a window leaves of it, all layers and heads,
    `tokens` in all.
    """
    return sum(_layer_flops(shape.heads, layer, tokens) for layer in shape.every)


def _layer_flops(heads: int, layer: DecoderLayer, tokens: int) -> float:
    seen = tokens if layer.window is None else min(layer.window, tokens)
    pairs = seen * (seen + 1) / 2 + (tokens - seen) * seen
    return heads * 4 * layer.head_dim * pairs if layer.attends else 0.0


def attention_flops_saved(shape: Shape, plan: Plan | None, visual: int, after: int, before: int = 0) -> float:
    """Of these, what patched heads need not compute: scores and values of visual keys.

    Args:
        visual: tokens of the one image. after, before: text tokens behind it and in front of it.

    Returns:
        0 in families whose image tokens see forward (`Family.plain_causal`), for plans without closed form, and in layers
        whose window the request outgrows. The running sum of the values, once per KV head, is taken off.
    """
    if plan is None or not saves(plan) or not get_family(plan.family).plain_causal:
        return 0.0
    rows_inside = visual * (visual + 1) / 2 if plan.queries == "all" else 0
    saved = 0.0
    for index, heads in plan.heads.items():
        layer = shape.every[index]
        if layer.window is not None and before + visual + after > layer.window:
            continue
        touched = len({head // (shape.heads // layer.kv_heads) for head in heads})
        saved += (
            len(heads) * (rows_inside + after * visual) * 4 * layer.head_dim - touched * visual * 2 * layer.head_dim
        )
    return max(saved, 0.0)
