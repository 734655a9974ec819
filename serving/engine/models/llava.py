"""LLaVA-1.5 and its like in vLLM, patched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..internals import (
    MULTIMODAL_REGISTRY,
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    build_llava_info,
    build_llava_processor,
)
from .base import SapVllm
from .tower import TowerTap


@MULTIMODAL_REGISTRY.register_processor(
    build_llava_processor, info=build_llava_info, dummy_inputs=LlavaDummyInputsBuilder
)
class SapLlavaForConditionalGeneration(TowerTap, SapVllm, LlavaForConditionalGeneration):
    """LLaVA with a Shared Attention Prior."""

    def sap_pixels(self, image_input: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """One picture per image."""
        pixels = image_input["pixel_values"]
        return pixels if isinstance(pixels, torch.Tensor) else torch.stack(list(pixels)), {}
