"""Idefics 3 and its like: every tile of a picture, and the whole picture, is an image of its own to the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ....patches.idefics import item_order
from ....patches.tap import Tap


class ItemImages:
    """Mixed in for families whose decoder is `model.text_model` and whose tower is `model.vision_model`."""

    def sap_layers(self) -> Any:
        """The decoder's layers."""
        return self.model.text_model.layers  # type: ignore[attr-defined]

    def sap_pixels(self, image_input: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Tiles and whole pictures of all images one behind another, as one batch (1, n, 3, h, w)."""
        return image_input["pixel_values"][None], {}

    def sap_tap(self, pool: str) -> tuple[Any, int, Tap]:
        """The last layer; its patches are shuffled into tokens."""
        attention = self.model.vision_model.encoder.layers[-1].self_attn  # type: ignore[attr-defined]
        tap = Tap(attention.attn, self.config.scale_factor**2, pool, order=item_order(self, {}))  # type: ignore[attr-defined]
        return attention.attn, attention.num_heads_per_partition, tap
