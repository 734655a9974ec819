"""LLaVA-OneVision in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from .base import SapVllm
from .tiled import TiledImages
from .tower import TowerTap


@MULTIMODAL_REGISTRY.register_processor(
    LlavaOnevisionMultiModalProcessor, info=LlavaOnevisionProcessingInfo, dummy_inputs=LlavaOnevisionDummyInputsBuilder
)
class SapLlavaOnevisionForConditionalGeneration(TowerTap, TiledImages, SapVllm, LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision with a Shared Attention Prior."""

    sap_newline_argument = True
