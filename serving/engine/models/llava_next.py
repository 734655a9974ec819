"""LLaVA-1.6 in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    LlavaDummyInputsBuilder,
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from .base import SapVllm
from .tiled import TiledImages
from .tower import TowerTap


@MULTIMODAL_REGISTRY.register_processor(
    LlavaNextMultiModalProcessor, info=LlavaNextProcessingInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class SapLlavaNextForConditionalGeneration(TowerTap, TiledImages, SapVllm, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT with a Shared Attention Prior."""

    sap_newline_argument = False
