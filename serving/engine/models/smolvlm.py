"""SmolVLM and SmolVLM2 in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    Idefics3DummyInputsBuilder,
    Idefics3MultiModalProcessor,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessingInfo,
)
from .base import SapVllm
from .items import ItemImages


@MULTIMODAL_REGISTRY.register_processor(
    Idefics3MultiModalProcessor, info=SmolVLMProcessingInfo, dummy_inputs=Idefics3DummyInputsBuilder
)
class SapSmolVLMForConditionalGeneration(ItemImages, SapVllm, SmolVLMForConditionalGeneration):
    """SmolVLM and SmolVLM2 with a Shared Attention Prior."""
