"""How many blocks a longest request leaves out, for vLLM's report of its capacity."""

from __future__ import annotations

from typing import Any

from ..internals import MULTIMODAL_REGISTRY, get_mm_max_toks_per_item

_known: dict[int, tuple[int, int]] = {}


def hole_tokens(vllm_config: Any, size: int) -> int:
    """Tokens in cache blocks of `size` that a request of max_model_len leaves out in whole groups, for vLLM's report.

    The request is as full of images as the server allows, as large as it allows, and a sixteenth of it is text.
    """
    model = vllm_config.model_config
    if id(model) not in _known:
        _known.clear()
        _known[id(model)] = _longest(model)
    limit, largest = _known[id(model)]
    room = model.max_model_len - model.max_model_len // 16
    tokens = min(largest, room)
    if not limit or not tokens:
        return 0
    # an image starts inside a block, and keeps its last block and the one in front of it
    return min(limit, room // tokens) * max((tokens - 1) // size - 2, 0) * size


def _longest(model: Any) -> tuple[int, int]:
    """Most images of a request, and tokens of the largest one."""
    limit = model.multimodal_config.get_limit_per_prompt("image")
    if not limit:
        return 0, 0
    processor = MULTIMODAL_REGISTRY.create_processor(model)
    return limit, dict(get_mm_max_toks_per_item(processor, {"image": 1}, None)).get("image", 0)
