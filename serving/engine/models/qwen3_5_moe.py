"""Qwen3.5 with experts in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3_5MoeProcessingInfo,
    Qwen3VLDummyInputsBuilder,
    Qwen3VLMultiModalProcessor,
)
from .base import SapVllm
from .patch_rows import RowImages


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLMultiModalProcessor, info=Qwen3_5MoeProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class SapQwen3_5MoeForConditionalGeneration(RowImages, SapVllm, Qwen3_5MoeForConditionalGeneration):
    """Qwen3.5 with experts and a Shared Attention Prior: layers of linear attention keep their states beside the summaries."""
