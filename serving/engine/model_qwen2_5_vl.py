"""Qwen2.5-VL in vLLM, patched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...patches.tap import Tap
from .internals import (
    MULTIMODAL_REGISTRY,
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from .model import SapVllm


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5_VLMultiModalProcessor, info=Qwen2_5_VLProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
class SapQwen2_5_VLForConditionalGeneration(SapVllm, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with a Shared Attention Prior."""

    def sap_pixels(self, image_input: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """vLLM normalises on the device, inside the tower: do the same to what it was given."""
        pixels = self.visual.input_norm(image_input["pixel_values"].to(self.visual.device), torch.float32)
        return pixels, {"image_grid_thw": image_input["image_grid_thw"].cpu()}

    def sap_tap(self, pool: str) -> tuple[Any, int, Tap]:
        """The last vision block."""
        attention = self.visual.blocks[-1].attn
        tap = Tap(attention.attn, self.visual.spatial_merge_size**2, pool)
        return attention.attn, attention.num_attention_heads_per_partition, tap
