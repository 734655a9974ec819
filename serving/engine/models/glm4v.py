"""GLM-4.1V in vLLM, patched."""

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
class SapGlm4vForConditionalGeneration(RowImages, SapVllm, Glm4vForConditionalGeneration):
    """GLM-4.1V with a Shared Attention Prior."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        config = vllm_config.model_config.hf_config
        patched, config.model_type = config.model_type, "glm4v"  # vLLM chooses the decoder by it
        try:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        finally:
            config.model_type = patched
