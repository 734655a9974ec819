"""Helpers of the LLaVA families: square pictures cut into patches, tiles put together again."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from .family import Arguments, last_attention
from .pixels import normalised_to_gray, patch_complexity
from .plan import Pixels
from .tap import Tap


def tile_complexity(images: torch.Tensor, size: int, pixels: Pixels | None) -> torch.Tensor:
    """Complexity of every patch of square pictures.

    Args:
        images: normalised pixels (N, 3, height, width); pixels behind the last whole patch do not count, as in the tower.
        size: side of a patch.

    Returns:
        (N, patches), row by row.
    """
    gray = normalised_to_gray(images, pixels)
    patches = gray.unfold(1, size, size).unfold(2, size, size)  # (N, rows, columns, size, size)
    return patch_complexity(patches).flatten(1)


def counts(inner: Any, arguments: Arguments) -> list[int]:
    """Number of pictures (base picture and tiles) of every image, as the model counts them."""
    sizes = arguments["image_sizes"]
    per_sample = arguments.get("batch_num_images")
    tiled = [True] * len(sizes) if per_sample is None else [n == 1 for n in per_sample for _ in range(int(n))]
    side, points = inner.config.vision_config.image_size, inner.config.image_grid_pinpoints
    return [image_size_to_num_patches(s, points, side) if t else 1 for s, t in zip(sizes, tiled, strict=True)]


def split_tiles(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Pictures of every image without the padding of the batch: a list of (pictures, 3, h, w)."""
    amounts = counts(inner, arguments)
    if pixel_values.dim() == 5:
        return [x[:n] for x, n in zip(pixel_values, amounts, strict=True)]
    return list(pixel_values.split(amounts))


def dropped(config: Any) -> int:
    """Leading tokens of the tower that are no visual tokens: strategy `default` drops the first, `full` keeps all."""
    return int(config.vision_feature_select_strategy == "default")


def shown_first(config: Any) -> int:
    """How many visual tokens stand in front of the first whole patch: 1 for a CLS token that `full` keeps, else 0; -1 where
    `default` drops the first patch of a tower that has no CLS token (SigLIP).
    """
    return int(config.vision_config.model_type == "clip_vision_model") - dropped(config)


def as_tokens(patches: torch.Tensor, config: Any, nothing: float = 0.0) -> torch.Tensor:
    """Numbers of patches as numbers of visual tokens.

    A CLS token among the visual tokens shows no pixels of its own: it gets `nothing`.

    Args:
        patches: (..., patches).
    """
    first = shown_first(config)
    return torch.nn.functional.pad(patches, (first, 0), value=nothing)


def tower_tap(inner: Any, pool: str) -> Tap:
    """Listen to the last layer of a CLIP (with CLS token) or SigLIP (without) tower; their patches are not merged.

    A CLS token that is a visual token receives attention like any other, and looks at the others.
    """
    return Tap(last_attention(inner.vision_tower), pool=pool, skip=dropped(inner.config))


def received_by_patches(tap: Tap) -> torch.Tensor:
    """Mean attention that every visual token of every picture receives from the others, (pictures, tokens)."""
    sums = torch.cat(tap.received)
    return sums / sums.shape[1]
