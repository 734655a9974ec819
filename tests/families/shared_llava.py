"""What the tiny LLaVA models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import Inputs

MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
PUBLISHED = ("vision_tower.", "vision_tower.vision_model.")


def serve_squares(side: int) -> Callable[[Any, Any], None]:
    """Square pictures of that many pixels, and tiles of them where the model has some."""

    def serve(config: Any, number: Any) -> None:
        config.vision_config.image_size = side
        if hasattr(config.text_config, "sliding_window"):
            config.text_config.sliding_window = None  # as in the published checkpoints
        config.image_token_index = config.image_token_id = number("<image>")
        if hasattr(config, "video_token_index"):
            config.video_token_index = config.video_token_id = number("<video>")
        if hasattr(config, "image_grid_pinpoints"):
            config.image_grid_pinpoints = [[side, 2 * side], [2 * side, side]]

    return serve


def tiled_inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
    """A base picture and two tiles of 4 x 4 patches each."""
    return {
        "pixel_values": torch.randn(images, 3, 3, 56, 56, generator=g),
        "image_sizes": torch.tensor([[56, 112]] * images),
    }


def received_patches(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
    """One picture, one token per patch; CLIP's first token is none."""
    skip = int(config.vision_config.model_type == "clip_vision_model")
    return list(weights[-1][:, :, skip:, skip:].mean((1, 2)))


def received_tiles(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
    """A base picture and two tiles side by side, a line break behind every row, for `tiled_inputs`."""
    found = []
    for base, first, second in torch.stack(received_patches(config, inputs, weights, pool)).unflatten(0, (-1, 3)):
        rows = torch.cat([first.view(4, 4), second.view(4, 4)], 1)
        found.append(torch.cat([base, torch.nn.functional.pad(rows, (0, 1)).flatten()]))
    return found
