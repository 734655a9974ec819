"""GLM-OCR in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    Glm4vDummyInputsBuilder,
    Glm4vMultiModalProcessor,
    Glm4vProcessingInfo,
    GlmOcrForConditionalGeneration,
)
from .base import SapVllm
from .patch_rows import RowImages


@MULTIMODAL_REGISTRY.register_processor(
    Glm4vMultiModalProcessor, info=Glm4vProcessingInfo, dummy_inputs=Glm4vDummyInputsBuilder
)
class SapGlmOcrForConditionalGeneration(RowImages, SapVllm, GlmOcrForConditionalGeneration):
    """GLM-OCR with a Shared Attention Prior."""
