"""Qwen2.5-VL in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from .base import SapVllm
from .patch_rows import RowImages


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5_VLMultiModalProcessor, info=Qwen2_5_VLProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
class SapQwen2_5_VLForConditionalGeneration(RowImages, SapVllm, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with a Shared Attention Prior."""
