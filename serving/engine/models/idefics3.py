"""Idefics 3 in vLLM, patched."""

from __future__ import annotations

from ..internals import (
    MULTIMODAL_REGISTRY,
    Idefics3DummyInputsBuilder,
    Idefics3ForConditionalGeneration,
    Idefics3MultiModalProcessor,
    Idefics3ProcessingInfo,
)
from .base import SapVllm
from .items import ItemImages


@MULTIMODAL_REGISTRY.register_processor(
    Idefics3MultiModalProcessor, info=Idefics3ProcessingInfo, dummy_inputs=Idefics3DummyInputsBuilder
)
class SapIdefics3ForConditionalGeneration(ItemImages, SapVllm, Idefics3ForConditionalGeneration):
    """Idefics 3 with a Shared Attention Prior."""
