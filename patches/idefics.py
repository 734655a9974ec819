"""What Idefics 3 and SmolVLM share: tiles and a global picture, all-zero pictures that only fill up a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .crops import crop_rectangles, grid_and_whole
from .family import Arguments
from .geometry import Rectangle, Size
from .plan import Pixels
from .squares import received_by_squares, square_complexity, square_order, square_tap
from .tap import Tap


@dataclass(frozen=True)
class Splits:
    """How a processor cuts a picture into tiles of `tile` pixels.

    Attributes:
        longest: the longer side is resized to this many pixels first; None: the picture keeps its size.
    """

    tile: int
    longest: int | None = None

    def cut(self, size: Size) -> list[Rectangle]:
        """Tiles row by row, then the whole picture; a picture no larger than a tile is shown once."""
        wide = size[0] >= size[1]
        if self.longest is not None:
            short = _shorter(self.longest, size)
            size = (self.longest, short + short % 2) if wide else (short + short % 2, self.longest)
        many = math.ceil(max(size) / self.tile)
        few = math.ceil(_shorter(many * self.tile, size) / self.tile)
        return grid_and_whole(many, few) if wide else grid_and_whole(few, many)


def _shorter(longer: int, size: Size) -> int:
    """The shorter side of a picture of that shape whose longer side is `longer`, rounded as the processor rounds."""
    ratio = size[0] / size[1]
    return max(int(longer / ratio) if size[0] >= size[1] else int(longer * ratio), 1)


def split_items(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Tiles and global pictures (3, h, w) without those that are all zero, as the model drops them."""
    every = pixel_values.flatten(0, 1)
    real = every.flatten(1).any(1)
    real[0] |= ~real.any()
    return list(every[real])


def item_complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """One token per square of patches."""
    return square_complexity(images, inner.config.scale_factor * inner.config.vision_config.patch_size, pixels)


def item_tap(inner: Any, pool: str) -> Tap:
    """The last layer's patches stand row by row; a mask hides those of padding."""
    return square_tap(inner.vision_model, inner.config.scale_factor, pool)


def item_order(inner: Any, arguments: Arguments) -> torch.Tensor:
    """The model shuffles patches row by row into tokens."""
    n = _patches(inner)
    return square_order(n, n, inner.config.scale_factor)


def item_received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """Every tile or global picture is its own attention."""
    return received_by_squares(tap)


def item_rectangles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Splits | None) -> list[torch.Tensor]:
    """By default the longer side is four tiles long, as in the published processors."""
    tile = inner.config.vision_config.image_size
    images = len(split_items(inner, arguments["pixel_values"], arguments))
    fit = fit or Splits(tile, 4 * tile)
    return crop_rectangles(images, _patches(inner) // inner.config.scale_factor, sizes, fit.cut)


def read_splits(processor: Any) -> Splits:
    """From an image processor."""
    sizes = [s if isinstance(s, dict) else vars(s) for s in (processor.size, processor.max_image_size)]
    longest, tile = (int(s["longest_edge"]) for s in sizes)
    return Splits(tile, longest if processor.do_resize else None)


def _patches(inner: Any) -> int:
    vision = inner.config.vision_config
    return int(vision.image_size // vision.patch_size)
