"""Family `internvl`: InternVL 3 in its Hugging Face form.

A picture is cut into tiles and a thumbnail; the encoder gets them as images of their own and is not told which belong
together, so every tile has a prior of its own. The paper tested none of these models: layers and heads are by default those
that it gives for LLaVA-OneVision, clipped to the model's depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.models.internvl.modeling_internvl import InternVLModel

from .crops import Limits, crop_rectangles, grid_and_whole
from .family import Arguments, Family, register_family
from .geometry import Rectangle, Size
from .inner import SapInner
from .modeling import SapGeneration
from .plan import Pixels
from .squares import received_by_squares, square_complexity, square_order, square_tap
from .tap import Tap

PUBLISHED = Limits(most=12)


class SapInternVLConfig(InternVLConfig):
    """Configuration of a patched InternVL; its plan is `sap`."""

    model_type = "sap_internvl"


class SapInternVLModel(SapInner, InternVLModel):
    """InternVL without head, patched."""

    config_class = SapInternVLConfig


class SapInternVLForConditionalGeneration(SapGeneration, InternVLForConditionalGeneration):
    """InternVL with a Shared Attention Prior."""

    config_class = SapInternVLConfig
    inner_class = SapInternVLModel


def split(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Tiles (3, h, w)."""
    return list(pixel_values)


def side(inner: Any) -> int:
    """Patches in a row, and in a column, of one token."""
    return round(1 / inner.config.downsample_ratio)


def complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """One token per square of patches."""
    return square_complexity(images, side(inner) * inner.config.vision_config.patch_size[0], pixels)


def tap(inner: Any, pool: str) -> Tap:
    """The last layer's patches stand behind a class token, which is left out."""
    return square_tap(inner.vision_tower, side(inner), pool, skip=1)


def order(inner: Any, arguments: Arguments) -> torch.Tensor:
    """The model shuffles patches row by row into tokens."""
    n = _tile_patches(inner)
    return square_order(n, n, side(inner))


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """Every tile is its own attention."""
    return received_by_squares(tap)


def rectangles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Limits | None) -> list[torch.Tensor]:
    """Tiles row by row, then a thumbnail, if there is more than one."""
    limits, n = fit or PUBLISHED, _tile_patches(inner) // side(inner)
    images = len(arguments["pixel_values"])
    return crop_rectangles(images, n, sizes, lambda size: _tiles(size, inner.config.vision_config.image_size, limits))


def _tile_patches(inner: Any) -> int:
    vision = inner.config.vision_config
    return int(vision.image_size[0] // vision.patch_size[0])


def _tiles(size: Size, tile: Sequence[int], limits: Limits) -> list[Rectangle]:
    """The grid of tiles whose shape is nearest to the picture's; of several the largest that it fills by half."""
    width, height = size
    every = range(1, limits.most + 1)
    grids = [(c, r) for c in every for r in every if limits.least <= c * r <= limits.most]
    best, nearest = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        apart = abs(width / height - columns / rows)
        filled = width * height > 0.5 * tile[0] * tile[1] * columns * rows
        if apart < nearest or (apart == nearest and filled):
            best, nearest = (columns, rows), apart
    return grid_and_whole(*best)


def read_limits(processor: Any) -> Limits:
    """From an image processor."""
    return Limits(int(processor.max_patches), int(processor.min_patches))


FAMILY = register_family(
    Family(
        name="internvl",
        title="InternVL 3 in its Hugging Face form",
        config_class=SapInternVLConfig,
        model_class=SapInternVLForConditionalGeneration,
        layers=(21, 27),
        heads=(0.3, 0.6),
        rescaled=True,
        two_sided=True,
        split=split,
        complexity=complexity,
        tap=tap,
        received=received,
        rectangles=rectangles,
        towers=("internvl_vision",),
        text_models=("qwen2", "llama", "qwen3"),
        video="as pictures",
        order=order,
        tiled=True,
        fit=read_limits,
        stacked_features=True,
    )
)
