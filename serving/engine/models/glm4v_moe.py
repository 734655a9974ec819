"""GLM-4.5V and GLM-4.6V in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    Glm4vDummyInputsBuilder,
    Glm4vMoeForConditionalGeneration,
    Glm4vMultiModalProcessor,
    Glm4vProcessingInfo,
)
from .base import SapVllm
from .patch_rows import RowImages


@MULTIMODAL_REGISTRY.register_processor(
    Glm4vMultiModalProcessor, info=Glm4vProcessingInfo, dummy_inputs=Glm4vDummyInputsBuilder
)
class SapGlm4vMoeForConditionalGeneration(RowImages, SapVllm, Glm4vMoeForConditionalGeneration):
    """GLM-4.5V and GLM-4.6V with a Shared Attention Prior."""
