"""A loaded plain model that obeys one plan after the other, and is plain again in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ...patches.family import attentions_of, get_family
from ...patches.install import exchange, install
from ...patches.plan import Plan
from .frontier import Group

Swap = Callable[[Plan], None]


def restrict(plan: Plan, groups: Sequence[Group]) -> Plan:
    """The plan with these KV groups alone; it has to patch them wholly."""
    wanted: dict[int, set[int]] = {}
    for layer, group in groups:
        size = plan.num_heads // plan.kv_heads(layer)
        wanted.setdefault(layer, set()).update(range(group * size, (group + 1) * size))
    heads = {layer: tuple(sorted(wanted[layer])) for layer in sorted(wanted)}
    levels = {
        layer: tuple(x for h, x in zip(plan.heads[layer], plan.levels[layer], strict=True) if h in wanted[layer])
        for layer in heads
        if layer in plan.levels
    }
    weights = {
        layer: tuple(
            v for g, v in zip(plan.kv_heads_of(layer), plan.weights[layer], strict=True) if (layer, g) in groups
        )
        for layer in heads
        if layer in plan.weights
    }
    return replace(plan, heads=heads, levels=levels, weights=weights)


def groups_of(plan: Plan) -> list[Group]:
    """All whole KV groups of a plan, in order."""
    return [(layer, group) for layer in plan.layers for group in plan.whole_groups(layer)]


@contextmanager
def swapping(model: Any, plan: Plan) -> Iterator[Swap]:
    """Let a plain model, whole in memory once, run any plan of the same family and mode as `plan`.

    Yields a function that puts a plan in place; the plan without heads computes bit for bit what the plain model does.
    Afterwards the model is what it was before.
    """
    inner, family = model.model, get_family(plan.family)
    classes, before = (type(model), type(inner)), _implementations(model)
    model.__class__ = family.model_class
    try:
        install(model, plan)
        yield lambda wanted: exchange(model, wanted)
    finally:
        model.__class__, inner.__class__ = classes
        for part in (model, inner):
            for name in ("sap_plan", "sap_settings"):
                vars(part).pop(name, None)
        for attention in attentions_of(inner).values():
            vars(attention).pop("sap_layer", None)
        model.set_attn_implementation(before)


def _implementations(model: Any) -> dict[str, Any]:
    parts = {"text_config": model.config.get_text_config(), "vision_config": model.config.vision_config}
    return {name: part._attn_implementation for name, part in parts.items()}
