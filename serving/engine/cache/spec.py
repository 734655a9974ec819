"""KV cache of whole groups: text tokens and one summary per image; what lies inside an image takes no memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..internals import MULTIMODAL_REGISTRY, AttentionSpec, KVCacheSpecRegistry, get_mm_max_toks_per_item

_known: dict[int, tuple[int, int]] = {}
_capacity: ContextVar[bool] = ContextVar("lostattn_capacity", default=False)


@dataclass(frozen=True, kw_only=True)
class SummarySpec(AttentionSpec):
    """KV-cache spec of layers whose KV heads are all patched groups.

    No FullAttentionSpec: vLLM would merge it with ordinary layers and expects their prefix hits to be closed downwards.

    Attributes:
        hole_tokens: tokens in blocks that a longest request full of images leaves out, for vLLM's report of the maximum
            concurrency; what a request may occupy at worst is counted without images.
    """

    hole_tokens: int = 0

    def max_memory_usage_bytes(self, vllm_config: Any) -> int:
        """Bytes of one request of max_model_len."""
        tokens = vllm_config.model_config.max_model_len
        blocks = -(-tokens // self.block_size)
        if _capacity.get():
            blocks -= self.hole_tokens // self.block_size
        return max(blocks, 1) * self.page_size_bytes


@contextmanager
def counting_images() -> Iterator[None]:
    """Let `max_memory_usage_bytes` count requests full of images while the block runs."""
    token = _capacity.set(True)
    try:
        yield
    finally:
        _capacity.reset(token)


def register_specs() -> None:
    """Make the spec and its manager known; in every process that may see them."""
    from .manager import SummaryManager

    KVCacheSpecRegistry._ensure_registered()  # an entry in an empty registry would keep the built-in ones out
    KVCacheSpecRegistry.register(SummarySpec, SummaryManager, uniform_type_base_spec=SummarySpec)


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
