"""Qwen3.5 in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5ProcessingInfo,
    Qwen3VLDummyInputsBuilder,
    Qwen3VLMultiModalProcessor,
)
from .base import SapVllm
from .patch_rows import RowImages


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLMultiModalProcessor, info=Qwen3_5ProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class SapQwen3_5ForConditionalGeneration(RowImages, SapVllm, Qwen3_5ForConditionalGeneration):
    """Qwen3.5 and a Shared Attention Prior: layers of linear attention keep their states beside the summaries."""
