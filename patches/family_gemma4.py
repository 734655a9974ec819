"""Family `gemma4`: Gemma 4 with pictures (E2B, E4B, 26B-A4B, 31B).

A picture keeps its shape: the encoder gets its patches as rows with their places, padded to one length, and averages squares of
them. In the larger models image tokens see each other both ways within windows; in the smaller ones the last layers read the
keys and values of earlier ones. The paper tested none of these models: layers and heads are by default those that it gives for
LLaVA-OneVision, clipped to the model's depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Gemma4Config, Gemma4ForConditionalGeneration
from transformers.models.gemma4.modeling_gemma4 import Gemma4Model

from .family import Arguments, Family, register_family
from .geometry import Size, grid_rectangles
from .inner import SapInner
from .modeling import SapGeneration
from .plan import Pixels
from .squares import square_complexity, square_order, square_tap
from .tap import Tap


class SapGemma4Config(Gemma4Config):
    """Configuration of a patched Gemma 4; its plan is `sap`."""

    model_type = "sap_gemma4"


class SapGemma4Model(SapInner, Gemma4Model):
    """Gemma 4 without head, patched."""

    config_class = SapGemma4Config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """All rows run through all layers.

        Newer versions of transformers give layers that read another's keys only the rows whose logits are kept; which rows a
        plan patches is counted from the first.
        """
        kwargs.pop("logits_to_keep", None)
        return super().forward(*args, **kwargs)


class SapGemma4ForConditionalGeneration(SapGeneration, Gemma4ForConditionalGeneration):
    """Gemma 4 with a Shared Attention Prior."""

    config_class = SapGemma4Config
    inner_class = SapGemma4Model


def side(inner: Any) -> int:
    """Patches in a row, and in a column, that the model averages into one token."""
    return int(inner.config.vision_config.pooling_kernel_size)


def _grids(arguments: Arguments) -> list[tuple[int, int]]:
    """Rows and columns of patches of every picture, without padding."""
    return [(int(y) + 1, int(x) + 1) for x, y in arguments["image_position_ids"].amax(1).tolist()]


def split(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Pictures (3, h, w) of their own size, from patches (pictures, P, size size 3) that stand row by row."""
    size, pictures = inner.config.vision_config.patch_size, []
    for patches, (rows, columns) in zip(pixel_values, _grids(arguments), strict=True):
        grid = patches[: rows * columns].view(rows, columns, size, size, 3)
        pictures.append(grid.permute(4, 0, 2, 1, 3).reshape(3, rows * size, columns * size))
    return pictures


def complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """One token per square of patches."""
    return square_complexity(images, side(inner) * inner.config.vision_config.patch_size, pixels)


def tap(inner: Any, pool: str) -> Tap:
    """Every picture is a row of patches; a mask hides padding."""
    return square_tap(inner.vision_tower, side(inner), pool)


def order(inner: Any, arguments: Arguments) -> torch.Tensor:
    """Squares of patches of every picture, and then its padding, (pictures, P)."""
    count = arguments["image_position_ids"].shape[1]
    results = []
    for rows, columns in _grids(arguments):
        padding = torch.arange(rows * columns, count)
        results.append(torch.cat([square_order(rows, columns, side(inner)), padding]))
    return torch.stack(results)


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """Every picture is its own attention."""
    sums = torch.cat(tap.received)
    lengths = [rows * columns // side(inner) ** 2 for rows, columns in _grids(arguments)]
    return [x[:n] / sums.shape[1] for x, n in zip(sums, lengths, strict=True)]


def rectangles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Any) -> list[torch.Tensor]:
    """Pictures are stretched over a grid of patches."""
    return [grid_rectangles(rows // side(inner), columns // side(inner)) for rows, columns in _grids(arguments)]


FAMILY = register_family(
    Family(
        name="gemma4",
        title="Gemma 4 with pictures (E2B, E4B, 26B-A4B, 31B)",
        config_class=SapGemma4Config,
        model_class=SapGemma4ForConditionalGeneration,
        layers=(21, 27),
        heads=(0.3, 0.6),
        rescaled=True,
        two_sided=True,
        split=split,
        complexity=complexity,
        tap=tap,
        received=received,
        rectangles=rectangles,
        towers=("gemma4_vision",),
        text_models=("gemma4_text",),
        order=order,
        both_ways=True,
    )
)
