"""LLaVA models that show an image whole and in tiles: how their tokens are put together, by vLLM's own rearrangement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch


class TiledImages:
    """Mixed in for families whose encoder calls have `image_sizes`."""

    def sap_pixels(self, image_input: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Pictures of all images one behind another, (pictures, 3, h, w)."""
        pixels = image_input["pixel_values"]
        pixels = pixels.flatten(0, 1) if isinstance(pixels, torch.Tensor) else torch.cat(list(pixels))
        return pixels, {"image_sizes": torch.as_tensor(image_input["image_sizes"])}

    def sap_inner(self) -> Any:
        """The config, and vLLM's way to put a whole image's patches in order."""
        arrange = type(self)._merge_image_patch_embeddings  # type: ignore[attr-defined]
        config = self.config  # type: ignore[attr-defined]

        def pack_image_features(
            parts: Sequence[torch.Tensor],
            image_sizes: torch.Tensor,
            *args: Any,
            image_newline: torch.Tensor,
            **kwargs: Any,
        ) -> tuple[list[torch.Tensor], list[int]]:
            model = SimpleNamespace(config=config, image_newline=image_newline)
            extra = {"image_newline": image_newline} if self.sap_newline_argument else {}  # type: ignore[attr-defined]
            packed = [
                arrange(model, size, part, strategy="spatial_unpad", **extra)
                for size, part in zip(image_sizes, parts, strict=True)
            ]
            return packed, [len(x) for x in packed]

        return SimpleNamespace(config=config, pack_image_features=pack_image_features)
