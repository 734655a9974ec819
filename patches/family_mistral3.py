"""Family `mistral3`: Mistral Small 3.1 and its like, a Pixtral tower in front of Mistral.

The paper tested none of these models: layers and heads are by default those that it gives for LLaVA-OneVision, clipped to the
model's depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from transformers import Mistral3Config, Mistral3ForConditionalGeneration
from transformers.models.mistral3.modeling_mistral3 import Mistral3Model

from .family import Arguments, Family, register_family
from .geometry import Size, grid_rectangles
from .inner import SapInner
from .modeling import SapGeneration
from .plan import Pixels
from .squares import square_complexity, square_order, square_tap
from .tap import Tap


class SapMistral3Config(Mistral3Config):
    """Configuration of a patched Mistral 3; its plan is `sap`."""

    model_type = "sap_mistral3"


class SapMistral3Model(SapInner, Mistral3Model):
    """Mistral 3 without head, patched."""

    config_class = SapMistral3Config


class SapMistral3ForConditionalGeneration(SapGeneration, Mistral3ForConditionalGeneration):
    """Mistral 3 with a Shared Attention Prior."""

    config_class = SapMistral3Config
    inner_class = SapMistral3Model


def _picture_sizes(arguments: Arguments) -> list[tuple[int, int]]:
    """(height, width) in pixels of every picture, without the padding of the batch."""
    return [(int(h), int(w)) for h, w in torch.as_tensor(arguments["image_sizes"]).tolist()]


def _grids(inner: Any, arguments: Arguments) -> list[tuple[int, int]]:
    """Rows and columns of patches of every picture."""
    patch = inner.config.vision_config.patch_size
    return [(h // patch, w // patch) for h, w in _picture_sizes(arguments)]


def split(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Pictures (3, h, w) of their own size."""
    return [x[:, :h, :w] for x, (h, w) in zip(pixel_values, _picture_sizes(arguments), strict=True)]


def complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """One token per square of patches."""
    return square_complexity(images, inner.config.spatial_merge_size * inner.config.vision_config.patch_size, pixels)


def tap(inner: Any, pool: str) -> Tap:
    """The patches of all pictures stand in one row; a mask keeps the pictures apart."""
    return square_tap(inner.vision_tower, inner.config.spatial_merge_size, pool)


def order(inner: Any, arguments: Arguments) -> torch.Tensor:
    """Squares of patches of every picture are merged."""
    grids = _grids(inner, arguments)
    starts = accumulate((rows * columns for rows, columns in grids), initial=0)
    merge = inner.config.spatial_merge_size
    return torch.cat([start + square_order(*grid, merge) for start, grid in zip(starts, grids, strict=False)])


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """A picture's tokens are seen from that picture alone."""
    merge = inner.config.spatial_merge_size
    lengths = [(rows // merge) * (columns // merge) for rows, columns in _grids(inner, arguments)]
    return [x / len(x) for x in torch.cat([x[0] for x in tap.received]).split(lengths)]


def rectangles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Any) -> list[torch.Tensor]:
    """Pictures are stretched over a grid of patches."""
    merge = inner.config.spatial_merge_size
    return [grid_rectangles(rows // merge, columns // merge) for rows, columns in _grids(inner, arguments)]


FAMILY = register_family(
    Family(
        name="mistral3",
        title="Mistral Small 3.1 and its like (Pixtral tower)",
        config_class=SapMistral3Config,
        model_class=SapMistral3ForConditionalGeneration,
        layers=(21, 27),
        heads=(0.3, 0.6),
        rescaled=True,
        two_sided=True,
        split=split,
        complexity=complexity,
        tap=tap,
        received=received,
        rectangles=rectangles,
        towers=("pixtral",),
        text_models=("mistral", "ministral3"),
        video="has none",
        order=order,
    )
)
