"""What every layer of one tensor-parallel rank does: which of its heads go which way."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ....patches.call import LayerPlan, PathSettings
from ....patches.family import get_family
from ....patches.install import layer_plan
from ....patches.plan import Plan


@dataclass(frozen=True)
class Shard:
    """The heads that one rank owns. With more ranks than KV heads vLLM copies KV heads."""

    rank: int
    heads: int
    kv_heads: int

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.heads // self.kv_heads


@dataclass(frozen=True)
class Role:
    """Part of a plan for one layer, in numbers local to the rank.

    Attributes:
        whole: KV heads that keep summaries instead of keys and values, ascending.
        scattered: patched query heads that need the full cache, ascending.
    """

    whole: tuple[int, ...]
    scattered: tuple[int, ...]

    @property
    def active(self) -> bool:
        """True if the layer is patched at all on this rank."""
        return bool(self.whole or self.scattered)


def saves_memory(plan: Plan) -> bool:
    """True if visual keys of whole groups are never needed: static heads, blend 1, every query row patched.

    With rows `after_image` image tokens attend to earlier image tokens in the ordinary way; `prob_rescaled` needs the mean
    over all keys.
    """
    return plan.queries == "all" and not is_exact_form(plan)


def is_exact_form(plan: Plan) -> bool:
    """True if no closed form computes the plan and scores of visual keys have to be made."""
    return plan.dynamic or plan.blend != 1.0 or plan.scores == "prob_rescaled"


def serves_fitted(plan: Plan) -> bool:
    """True if all that a plan patches are whole groups that can keep summaries."""
    return saves_memory(plan) and not any(map(plan.outside_whole_groups, plan.layers))


def needs_whole_prompt(plan: Plan) -> bool:
    """True if a prompt has to be computed in one piece: heads or scores depend on all of its rows."""
    return plan.scores == "prob_rescaled" or (plan.dynamic and plan.queries != "last")


def local_role(plan: Plan, layer: int, shard: Shard, ranks: int) -> Role:
    """The role of a layer on a rank. All ranks keep summaries for equally many KV heads, as vLLM's cache specs must agree;
    a surplus group keeps its full cache."""
    if plan.dynamic:
        return Role((), tuple(range(shard.heads)) if layer in plan.heads else ())
    patched = [_local(plan, layer, shard, rank) for rank in range(ranks)]
    mine = patched[shard.rank]
    if not saves_memory(plan):
        return Role((), tuple(sorted(mine)))
    count = min(len(_whole(heads, shard)) for heads in patched)
    whole = _whole(mine, shard)[:count]
    kept = {h for g in whole for h in range(g * shard.group, (g + 1) * shard.group)}
    return Role(tuple(whole), tuple(sorted(mine - kept)))


def _local(plan: Plan, layer: int, shard: Shard, rank: int) -> set[int]:
    first = rank * shard.heads
    return {h - first for h in plan.heads.get(layer, ()) if first <= h < first + shard.heads}


def _whole(heads: set[int], shard: Shard) -> list[int]:
    size = shard.group
    return [g for g in range(shard.kv_heads) if all(h in heads for h in range(g * size, (g + 1) * size))]


def local_levels(plan: Plan, layer: int, shard: Shard) -> torch.Tensor | None:
    """Calibrated level of every local query head, float32 (H,), 0 where none; None if the plan has none."""
    if layer not in plan.levels:
        return None
    levels = torch.zeros(plan.num_heads, dtype=torch.float32)
    levels[list(plan.heads[layer])] = torch.tensor(plan.levels[layer], dtype=torch.float32)
    first = shard.rank * shard.heads
    return levels[first : first + shard.heads]


def local_weights(plan: Plan, layer: int, shard: Shard) -> torch.Tensor | None:
    """Weights of scores rule `fitted` of every local KV head, float32 (Hkv, F), 0 where none; None for other rules."""
    if layer not in plan.weights:
        return None
    count = plan.kv_heads(layer)
    result = torch.zeros(count, len(plan.features), dtype=torch.float32)
    result[list(plan.kv_heads_of(layer))] = torch.tensor(plan.weights[layer], dtype=torch.float32)
    # with more ranks than KV heads, several ranks have a copy of one
    first = [shard.rank * shard.heads + g * shard.group for g in range(shard.kv_heads)]
    return result[[h * count // plan.num_heads for h in first]]


def local_layer_plan(
    plan: Plan, layer: int, heads: tuple[int, ...], count: int, levels: torch.Tensor | None
) -> LayerPlan:
    """The layer's part of the plan as the model classes for transformers take it, for local heads.

    Args:
        heads: patched query heads among `count`.
        levels: (count,) or None.
    """
    result = layer_plan(plan, layer, PathSettings(), get_family(plan.family).two_sided)
    if plan.dynamic:
        return result
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(heads)] = True
    return LayerPlan(
        result.settings,
        mask,
        levels,
        None,
        heads,
        result.two_sided,
        result.rescale,
        result.blend,
    )
