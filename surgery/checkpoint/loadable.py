"""Checkpoints that could be patched but that nothing could load, and quantised ones: what their owner should know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...patches.errors import LostattnError

# what transformers needs beside itself; vLLM brings its own
PACKAGES = {
    "compressed-tensors": "compressed-tensors",
    "gptq": "optimum and gptqmodel",
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
}


def refuse_unloadable(config: Mapping[str, Any], tensors: Iterable[str]) -> None:
    """Refuse what neither transformers nor vLLM could load or run with a plan.

    Args:
        config: the parsed config.json.
        tensors: names of all weights.

    Raises:
        LostattnError: the projector of Yi-VL's published form, or attention that is quantised itself.
    """
    if config["model_type"] == "llava" and any("multi_modal_projector.linear_4." in name for name in tensors):
        raise LostattnError(
            "the projector has layer norms (multi_modal_projector.linear_4), as Yi-VL's has, and LLaVA in transformers and vLLM "
            "has none: neither loads these weights, patched or not; take a conversion without them, or another model"
        )
    for name, group in _groups(config).items():
        if isinstance(group, Mapping) and group.get("weights") is None and group.get("input_activations") is not None:
            raise LostattnError(
                f"quantization_config quantises attention itself ({name}: inputs without weights), which a patched layer "
                "computes in its own way: take a checkpoint whose weights alone are quantised"
            )


def quantisation_notes(config: Mapping[str, Any]) -> list[str]:
    """Sentences about a quantised checkpoint, none about others."""
    form = _form(config)
    if not form:
        return []
    method = str(form.get("quant_method") or "unnamed")
    kind = f"{method}, {form['format']}" if isinstance(form.get("format"), str) else method
    package = PACKAGES.get(method)
    needs = f", where transformers needs {package} to load them" if package else ""
    results = [f"the weights are quantised ({kind}) and stay as they are{needs}"]
    if form.get("kv_cache_scheme") is not None:
        results.append(
            "the checkpoint asks for a quantised KV cache, which a plan cannot use: serve it with --kv-cache-dtype bfloat16"
        )
    return results


def packed_bits(config: Mapping[str, Any]) -> int | None:
    """Bits of one packed weight; 0 if a quantised checkpoint does not say so for all alike, None for a plain one."""
    form = _form(config)
    if not form:
        return None
    said = [form.get("bits")]
    for group in _groups(config).values():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        said.append(weights.get("num_bits") if isinstance(weights, Mapping) else None)
    results = {bits for bits in said if type(bits) is int and 1 <= bits <= 8}
    return results.pop() if len(results) == 1 else 0


def quantised_cache(config: Mapping[str, Any]) -> bool:
    """True if the checkpoint asks for a quantised KV cache by itself."""
    return _form(config).get("kv_cache_scheme") is not None


def _form(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for part in (config, config.get("text_config")):
        if isinstance(part, Mapping) and isinstance(result := part.get("quantization_config"), Mapping):
            return result
    return {}


def _groups(config: Mapping[str, Any]) -> Mapping[str, Any]:
    result = _form(config).get("config_groups")
    return result if isinstance(result, Mapping) else {}
