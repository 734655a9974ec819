"""GLM-4.6V in its own form in vLLM, patched."""

from __future__ import annotations

from typing import Any

from ..internals import (
    MULTIMODAL_REGISTRY,
    Glm4vDummyInputsBuilder,
    Glm4vForConditionalGeneration,
    Glm4vMultiModalProcessor,
    Glm4vProcessingInfo,
)
from .base import SapVllm
from .patch_rows import RowImages


@MULTIMODAL_REGISTRY.register_processor(
    Glm4vMultiModalProcessor, info=Glm4vProcessingInfo, dummy_inputs=Glm4vDummyInputsBuilder
)
class SapGlm46VForConditionalGeneration(RowImages, SapVllm, Glm4vForConditionalGeneration):
    """GLM-4.6V with a Shared Attention Prior."""

    @staticmethod
    def sap_type(config: Any) -> str:
        """vLLM has no class for this form; its parts are those of the families that it has classes for."""
        return str(config.text_config.model_type.removesuffix("_text"))
