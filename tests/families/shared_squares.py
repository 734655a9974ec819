"""What the tiny models share whose tokens are squares of patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from . import Inputs

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def square_mean(weights: torch.Tensor, rows: int, columns: int, side: int, pool: str) -> torch.Tensor:
    """Mean over heads and queries of the attention (heads, N, N) between squares of side x side patches of a grid."""
    blocks = weights
    for dim in (2, 1):
        blocks = blocks.unflatten(dim, (rows // side, side, columns // side, side))
    blocks = blocks.amax((2, 4, 6, 8)) if pool == "max" else blocks.mean((2, 4, 6, 8))
    return blocks.mean((0, 1, 2)).flatten()


def received_squares(grid: int, side: int, skip: int = 0) -> Callable[..., list[torch.Tensor]]:
    """Every image is its own attention over a square grid of patches, behind `skip` other tokens."""

    def received(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
        return [square_mean(w[:, skip:, skip:], grid, grid, side, pool) for w in weights[-1]]

    return received


def name_tokens(words: Any, names: Mapping[str, str]) -> Any:
    """A tokenizer whose special tokens go by the names that a processor asks for."""
    words._set_model_specific_special_tokens(special_tokens=dict(names))
    words.init_kwargs |= {"extra_special_tokens": dict(names)}
    return words


def item_inputs(items: int) -> Callable[[torch.Tensor, int, torch.Generator], Inputs]:
    """Tiles of 4 x 4 patches, and behind those of every image one that only fills up the batch."""

    def inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
        pixels = torch.randn(images, items + 1, 3, 56, 56, generator=g)
        pixels[:, -1] = 0
        seen = torch.ones(images, items + 1, 56, 56, dtype=torch.int64)
        seen[:, -1] = 0
        return {"pixel_values": pixels, "pixel_attention_mask": seen}

    return inputs
