"""InternVL in its Hugging Face form in vLLM, patched: vLLM serves it by its class for Intern-S1, whose form is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ....patches.family import get_family
from ....patches.tap import Tap
from ..internals import (
    MULTIMODAL_REGISTRY,
    InternS1DummyInputsBuilder,
    InternS1ForConditionalGeneration,
    InternS1MultiModalProcessor,
    InternS1ProcessingInfo,
)
from ..versions import check_videos
from .base import SapVllm


class _Images(InternS1ForConditionalGeneration):
    """The plain model, its one way for images and videos under the name that others have for images."""

    def _process_image_input(self, image_input: Any) -> Any:
        return super()._process_vision_input(image_input)


@MULTIMODAL_REGISTRY.register_processor(
    InternS1MultiModalProcessor, info=InternS1ProcessingInfo, dummy_inputs=InternS1DummyInputsBuilder
)
class SapInternVLForConditionalGeneration(SapVllm, _Images):
    """InternVL with a Shared Attention Prior."""

    def _process_vision_input(self, image_input: Any) -> Any:
        if image_input["type"] == self.sap_video_kind and not self.sap_plan.inert:
            check_videos("internvl")
        return self._process_image_input(image_input)

    def sap_pixels(self, image_input: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Tiles of all images one behind another."""
        return image_input["pixel_values"], {}

    def sap_tap(self, pool: str) -> tuple[Any, int, Tap]:
        """The last layer; its patches stand behind a class token and are shuffled into tokens."""
        attention = self.vision_tower.encoder.layer[-1].attention
        return attention.attn, attention.num_heads, get_family("internvl").listener(self, {}, pool)
