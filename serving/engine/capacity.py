"""How many visual tokens a longest request can hold, for vLLM's report of its capacity."""

from __future__ import annotations

from typing import Any

from .internals import MULTIMODAL_REGISTRY, get_mm_max_toks_per_item

_known: dict[int, int] = {}


def longest_images(vllm_config: Any) -> int:
    """Visual tokens of a request of max_model_len that holds as many and as large images as the server allows."""
    model = vllm_config.model_config
    if id(model) not in _known:
        _known.clear()
        _known[id(model)] = _longest(model)
    return _known[id(model)]


def _longest(model: Any) -> int:
    limit = model.multimodal_config.get_limit_per_prompt("image")
    if not limit:
        return 0
    processor = MULTIMODAL_REGISTRY.create_processor(model)
    one = dict(get_mm_max_toks_per_item(processor, {"image": 1}, None)).get("image", 0)
    return (
        min(one * limit, model.max_model_len // one * one if one <= model.max_model_len else model.max_model_len)
        if one
        else 0
    )
