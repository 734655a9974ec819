"""Making a freshly built patched model obey its plan."""

from __future__ import annotations

from typing import Any

import torch

from .attention import NAME
from .call import LayerPlan, PathSettings
from .decoder import decoder_layers, other_kv_heads, usual_kv_heads
from .errors import LostattnError
from .family import attentions_of, get_family
from .mode import get_mode
from .plan import Plan


def install(model: Any, plan: Plan) -> None:
    """Make a freshly built patched model obey a plan: inner class, attention functions, one `LayerPlan` per layer."""
    check_plan(plan, model)
    path = path_for(model.config.get_text_config()._attn_implementation)
    inner = model.model
    inner.__class__ = model.inner_class
    model.sap_plan = inner.sap_plan = plan
    model.sap_settings = inner.sap_settings = PathSettings(path)
    model.set_attn_implementation(model.config._attn_implementation)
    model.sap_settings.force(path)
    _put(model, plan)


def exchange(model: Any, plan: Plan) -> None:
    """Let a patched model obey another plan of the same mode from now on; caches made before are of no use then.

    Raises:
        LostattnError: a plan for another model, or of another mode.
    """
    check_plan(plan, model)
    if plan.mode != model.sap_plan.mode:
        raise LostattnError(f"the model was built for mode '{model.sap_plan.mode}', the plan is of '{plan.mode}'")
    model.sap_plan = model.model.sap_plan = plan
    _put(model, plan)


def _put(model: Any, plan: Plan) -> None:
    """One `LayerPlan` per layer."""
    two_sided = get_family(plan.family).two_sided
    for index, attention in attentions_of(model.model).items():
        attention.sap_layer = layer_plan(plan, index, model.sap_settings, two_sided)


def check_plan(plan: Plan, model: Any) -> None:
    """LostattnError unless the plan belongs to a model of this family and shape, with options that its mode knows."""
    text = model.config.get_text_config()
    layers = decoder_layers(text)
    results = (len(layers), text.num_attention_heads, usual_kv_heads(layers))
    if not isinstance(model, get_family(plan.family).model_class):
        raise LostattnError(f"the plan is for family '{plan.family}', the model is a {type(model).__name__}: plan anew")
    if (plan.num_layers, plan.num_heads, plan.num_kv_heads) != results:
        raise LostattnError(
            f"the plan is for {plan.num_layers} layers, {plan.num_heads} heads and {plan.num_kv_heads} KV heads, the model has "
            f"{results[0]}, {results[1]} and {results[2]}: plan anew"
        )
    if dict(plan.layer_kv_heads) != other_kv_heads(layers):
        raise LostattnError("the plan and the model differ in the KV heads of single layers: plan anew")
    get_mode(plan.mode).check(plan)


def layer_plan(plan: Plan, index: int, settings: PathSettings, two_sided: bool) -> LayerPlan:
    """What one layer has to know of the plan."""
    if plan.inert or index not in plan.heads:
        return LayerPlan(settings, None)
    heads = levels = weights = None
    if plan.band is None:
        # "cpu" by name: from_pretrained builds models on the meta device
        heads = torch.zeros(plan.num_heads, dtype=torch.bool, device="cpu")
        heads[list(plan.heads[index])] = True
        if index in plan.levels:
            levels = torch.zeros(plan.num_heads, dtype=torch.float32, device="cpu")
            levels[list(plan.heads[index])] = torch.tensor(plan.levels[index], dtype=torch.float32, device="cpu")
        if index in plan.weights:
            weights = torch.zeros(plan.kv_heads(index), len(plan.features), dtype=torch.float32, device="cpu")
            weights[list(plan.kv_heads_of(index))] = torch.tensor(
                plan.weights[index], dtype=torch.float32, device="cpu"
            )
    two_sided = two_sided and plan.preset == "reference"
    listed = plan.heads[index] if plan.band is None else None
    rescale = plan.scores == "prob_rescaled"
    return LayerPlan(settings, heads, levels, plan.band, listed, two_sided, rescale, plan.blend, weights)


def path_for(implementation: str | None) -> str:
    """Path of the decoder's attention that an `attn_implementation` asks for."""
    if implementation in (None, "sdpa", NAME):
        return "auto"
    if implementation == "eager":
        return "eager"
    raise LostattnError(
        f"a patched decoder runs its own attention, so attn_implementation='{implementation}' cannot be used: "
        "choose 'sdpa' (fast) or 'eager'"
    )
