"""LLaVA-OneVision in vLLM, patched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

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


class _Videos(LlavaOnevisionForConditionalGeneration):
    """The plain model, its way for videos under the name that others have."""

    def _process_video_input(self, video_input: Any) -> Any:
        return super()._process_video_pixels(video_input)


@MULTIMODAL_REGISTRY.register_processor(
    LlavaOnevisionMultiModalProcessor, info=LlavaOnevisionProcessingInfo, dummy_inputs=LlavaOnevisionDummyInputsBuilder
)
class SapLlavaOnevisionForConditionalGeneration(TowerTap, TiledImages, SapVllm, _Videos):
    """LLaVA-OneVision with a Shared Attention Prior."""

    sap_newline_argument = True

    def _process_video_pixels(self, inputs: Any) -> Any:
        videos = inputs["pixel_values_videos"]
        if isinstance(videos, torch.Tensor):
            return self._process_video_input(inputs)
        each = ({"type": inputs["type"], "pixel_values_videos": video[None]} for video in videos)
        return [found for one in each for found in self._process_video_input(one)]

    def sap_pixels(self, given: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Of videos their frames (videos, frames, 3, h, w)."""
        if given["type"] == self.sap_kind:
            return super().sap_pixels(given)
        pixels = given["pixel_values_videos"]
        return pixels, {"pixel_values": pixels}

    def sap_inner(self) -> Any:
        """With the model's way to shrink frames."""
        inner = super().sap_inner()
        inner.apply_pooling = self.apply_pooling
        return inner
