"""Models whose encoder calls are rows of patches, several of them one token (Qwen-VL, GLM-V)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ....patches.tap import Tap


class RowImages:
    """Mixed in for families whose encoder calls have `image_grid_thw` or `video_grid_thw` and whose tower is `visual`."""

    def sap_pixels(self, given: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Normalised, or as bytes if vLLM normalises them inside the tower."""
        visual = self.visual  # type: ignore[attr-defined]
        grid = "image_grid_thw" if given["type"] == "pixel_values" else "video_grid_thw"
        return given[given["type"]].to(visual.device), {grid: given[grid].cpu()}

    def sap_tap(self, pool: str) -> tuple[Any, int, Tap]:
        """The last vision block."""
        visual = self.visual  # type: ignore[attr-defined]
        attention = visual.blocks[-1].attn
        tap = Tap(attention.attn, visual.spatial_merge_size**2, pool)
        return attention.attn, attention.num_attention_heads_per_partition, tap
