"""A patched model proves itself on a transformers version that it was not tested with, before anybody uses it.

A small random model of the same architecture answers a prompt with an image step by step on a cache, and the whole is read
once more in a single pass without one. If an argument, a cache or a hook has changed, the two differ.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .compat import NEWEST_TESTED, installed, named, tested_range
from .decoder import decoder_layers, other_kv_heads, usual_kv_heads
from .errors import LostattnError
from .family import Family, get_family
from .plan import Plan

SWITCH = "LOSTATTN_SELF_CHECK"
GRID, TOKENS, STEPS = (1, 8, 6), 12, 4  # patches of the small image, its visual tokens, generated tokens
HEADS, VOCABULARY, WIDTH, WINDOW = 4, 200, 32, 12
IMAGE = 150  # number of the image token
ALLOWED = 1e-3  # largest difference between the two ways, in parts of the largest logit

_PROVED: set[tuple[str, str]] = set()
_CHECKING: ContextVar[bool] = ContextVar("lostattn_self_check", default=False)


def prove(config: Any, plan: Plan) -> None:
    """Run the self-check of a model's architecture and plan, once per process; nothing on tested versions.

    Raises:
        LostattnError: cached decoding differs from a pass without a cache, or neither can be run.
    """
    done = (config.model_type, plan.digest)
    if (
        installed() <= NEWEST_TESTED
        or done in _PROVED
        or plan.inert
        or os.environ.get(SWITCH) == "0"
        or _CHECKING.get()
    ):
        return
    token = _CHECKING.set(True)
    try:
        problem = self_check(config, plan)
    except Exception as error:  # whatever a future transformers throws
        problem = f"it cannot be run ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    finally:
        _CHECKING.reset(token)
    if problem:
        newest = ".".join(map(str, NEWEST_TESTED))
        raise LostattnError(
            f"{named()} is newer than {newest}, the newest tested version, and "
            f"a small model of its kind fails the self-check: {problem}. Install a tested version (pip install "
            f"'{tested_range()}'), or patch the source again with a newer lostattn; {SWITCH}=0 skips the check"
        )
    _PROVED.add(done)


def self_check(config: Any, plan: Plan) -> str:
    """What is wrong with a small random model of a patched configuration's kind, or nothing.

    Args:
        config: configuration of a patched model, of any size.
        plan: what it obeys.
    """
    family = get_family(plan.family)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        model = family.model_class(small_config(family, config, plan)).eval().float()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        model.generation_config.suppress_tokens = list(range(IMAGE, VOCABULARY))
        prompt = _prompt(model)
        features, prior = torch.randn(TOKENS, model.config.get_text_config().hidden_size), torch.randn(TOKENS)
        if count := len(plan.features):
            prior = torch.randn(TOKENS, 1 + count).index_fill_(1, torch.tensor([0]), 0.0)

        def image(features: torch.Tensor = features, prior: torch.Tensor = prior) -> dict[str, Any]:
            return {"image": _encoded(family, model, features, prior)}

        result = model.generate(
            **prompt,
            mm_encoder_outputs=image(),
            max_new_tokens=STEPS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        calls = sum(model.sap_settings.counts.values())
        cached = torch.stack(result.logits, 1)
        whole = _continued(prompt, result.sequences[:, :-1])
        wanted = model(**whole, mm_encoder_outputs=image(), use_cache=False).logits[:, -STEPS:]
        others = (image(features=-features), image(prior=-2 * prior))
        moved = [model(**whole, mm_encoder_outputs=other, use_cache=False).logits[:, -STEPS:] for other in others]
    return _verdict(cached, wanted, moved, calls, STEPS * len(model.sap_plan.layers))


def _verdict(
    cached: torch.Tensor, wanted: torch.Tensor, moved: Iterable[torch.Tensor], calls: int, expected: int
) -> str:
    size = float(wanted.abs().max())
    if not size < float("inf"):
        return "its logits are not finite"
    if calls != expected:
        return f"its patched layers ran {calls} times instead of {expected}"
    difference = float((cached - wanted).abs().max())
    if not difference <= ALLOWED * size:  # NaN differs as well
        return f"cached decoding differs from a pass without a cache by {difference:.2g} (largest logit {size:.2g})"
    for what, other in zip(("the image's features", "the prior"), moved, strict=True):
        if torch.equal(
            other, wanted
        ):  # the same computation on the same shapes: equal to the bit where it does not matter
            return f"{what} does not reach the decoder"
    return ""


def small_plan(plan: Plan, text: Any) -> Plan:
    """A plan for the small decoder's configuration that runs the same code: all heads in the first layer that has attention,
    two elsewhere.

    Heads chosen anew in every call and rows chosen by their place make a pass without a cache another computation, so the
    heads are static and all rows patched.
    """
    layers = decoder_layers(text)
    attending = [i for i, layer in enumerate(layers) if layer.attends]
    heads = {layer: (0, 1, 2, 3) if layer == attending[0] else (0, 3) for layer in attending}
    levels = {layer: tuple(0.25 * h for h in heads[layer]) for layer in heads} if plan.levels else {}
    of_group = tuple(0.5 + 0.1 * i for i in range(len(plan.features)))
    sizes = {layer: HEADS // layers[layer].kv_heads for layer in heads}
    weights = {x: (of_group,) * len({h // sizes[x] for h in heads[x]}) for x in heads} if of_group else {}
    return replace(
        plan,
        num_layers=len(layers),
        num_heads=HEADS,
        num_kv_heads=usual_kv_heads(layers),
        heads=heads,
        levels=levels,
        band=None,
        layer_kv_heads=other_kv_heads(layers),
        weights=weights,
        queries="all" if plan.queries == "last" else plan.queries,
        scores="fitted" if weights else "log" if levels else "raw",
    )


def small_config(family: Family, config: Any, plan: Plan) -> Any:
    """The configuration with two layers of every kind, narrow towers and few words; heads keep their width."""
    raw = copy.deepcopy(config.to_dict())
    for key in ("model_type", "transformers_version", "quantization_config", "dtype", "torch_dtype", "auto_map"):
        raw.pop(key, None)
    raw["text_config"] = _small_text(raw["text_config"], config.get_text_config())
    raw["vision_config"] = _small_vision(raw["vision_config"], raw["text_config"]["hidden_size"])
    _number_tokens(raw)
    if "audio_config" in raw:
        raw["audio_config"] = None
    if "vision_feature_layer" in raw:
        raw["vision_feature_layer"] = -1
    small = family.config_class(**copy.deepcopy(raw))
    return family.config_class(**{**raw, "sap": small_plan(plan, small.get_text_config()).to_json()})


def _small_text(raw: dict[str, Any], text: Any) -> dict[str, Any]:
    heads, kv_heads = text.num_attention_heads, raw.get("num_key_value_heads")
    width = raw.get("head_dim") or text.hidden_size // heads
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or ["full_attention"]))
    small = {
        "num_hidden_layers": 2 * len(kinds),
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2 if kv_heads and kv_heads < heads else HEADS,
        "hidden_size": HEADS * width,
        "intermediate_size": 64,
        "vocab_size": VOCABULARY,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    }
    narrow = {
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "num_experts": 4,
        "num_local_experts": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "top_k_experts": 2,
        "vocab_size_per_layer_input": VOCABULARY,
    }
    small |= {key: value for key, value in narrow.items() if raw.get(key) is not None}
    if raw.get("layer_types"):
        small["layer_types"] = kinds * 2
    if raw.get("num_kv_shared_layers"):
        small["num_kv_shared_layers"] = len(kinds)
    if raw.get("per_layer_config"):
        small["per_layer_config"] = _own_sizes(raw["per_layer_config"], raw["layer_types"], kinds)
    if raw.get("sliding_window"):
        small["sliding_window"] = WINDOW
    return {k: v for k, v in raw.items() if k not in ("transformers_version", "dtype", "torch_dtype")} | small


def _own_sizes(own: dict[Any, dict[str, Any]], old: list[str], kinds: list[str]) -> dict[int, dict[str, Any]]:
    """What is otherwise in layers of a kind than in the whole decoder, for two layers of every kind; KV heads become one."""
    results = {}
    for index, kind in enumerate(kinds * 2):
        values = next((v for i, v in own.items() if old[int(i)] == kind), None)
        if values:
            results[index] = {k: 1 if k == "num_key_value_heads" else v for k, v in values.items()}
    return results


def _small_vision(raw: dict[str, Any], hidden: int) -> dict[str, Any]:
    """Two layers, 32 wide, two heads; what is called otherwise in a family is changed where it is there."""
    small = {
        "depth": 2,
        "num_hidden_layers": 2,
        "num_heads": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "head_dim": WIDTH // 2,
        "projection_dim": WIDTH,
        "out_hidden_size": hidden,
        "deepstack_visual_indexes": [0, 1],
        "fullatt_block_indexes": [1],
    }
    small |= {"embed_dim": WIDTH, "hidden_size": hidden} if "embed_dim" in raw else {"hidden_size": WIDTH}
    return raw | {key: value for key, value in small.items() if raw.get(key) is not None}


def _number_tokens(raw: dict[str, Any]) -> None:
    """Give special tokens numbers within the small vocabulary, every one its own, the image token `IMAGE`."""
    free = iter(range(IMAGE + 1, VOCABULARY))
    for part in (raw, raw["text_config"], raw["vision_config"]):
        for key, value in part.items():
            if key in ("image_token_id", "image_token_index"):
                part[key] = IMAGE
            elif key.endswith(("token_id", "token_index")):
                part[key] = 0 if key == "pad_token_id" else next(free) if type(value) is int else None


def _prompt(model: Any) -> dict[str, torch.Tensor]:
    """Text, one image, text; with what the model wants to know of places."""
    words = torch.randint(3, IMAGE, (11,)).tolist()
    ids = torch.tensor([words[:4] + [IMAGE] * TOKENS + words[4:]])
    out = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    known: Callable[[str], bool] = inspect.signature(type(model).forward).parameters.__contains__
    kinds = {name: (ids == IMAGE).long() for name in ("mm_token_type_ids", "token_type_ids") if known(name)}
    grid = {"image_grid_thw": torch.tensor([GRID])} if known("image_grid_thw") else {}
    return out | kinds | grid


def _continued(prompt: dict[str, torch.Tensor], ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The prompt continued by the tokens that were generated."""
    more = ids.shape[1] - prompt["input_ids"].shape[1]
    per_token = {k: v for k, v in prompt.items() if k != "image_grid_thw"}
    longer = {k: torch.nn.functional.pad(v, (0, more), value=int(k == "attention_mask")) for k, v in per_token.items()}
    return {**prompt, **longer, "input_ids": ids}


def _encoded(family: Family, model: Any, features: torch.Tensor, prior: torch.Tensor) -> Any:
    """What `get_image_features` of a patched model returns."""
    out = BaseModelOutputWithPooling(pooler_output=features[None] if family.stacked_features else (features,))
    levels = getattr(model.config.vision_config, "deepstack_visual_indexes", None) or ()
    if levels:
        out["deepstack_features"] = [(features,) for _ in levels]
        out.deepstack_features = out["deepstack_features"]
    out["sap_prior"], out["sap_exact"] = [prior], False
    return out
