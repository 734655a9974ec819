"""Qwen2-VL in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    Qwen2VLDummyInputsBuilder,
    Qwen2VLForConditionalGeneration,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from .base import SapVllm
from .patch_rows import RowImages


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2VLMultiModalProcessor, info=Qwen2VLProcessingInfo, dummy_inputs=Qwen2VLDummyInputsBuilder
)
class SapQwen2VLForConditionalGeneration(RowImages, SapVllm, Qwen2VLForConditionalGeneration):
    """Qwen2-VL with a Shared Attention Prior."""
