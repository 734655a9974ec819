"""What the tokens of pictures show that a processor cuts into tiles, each an image of its own to the vision encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .errors import LostattnError
from .geometry import WHOLE, Rectangle, Size, grid_rectangles

Cut = Callable[[Size], list[Rectangle]]


@dataclass(frozen=True)
class Limits:
    """How many tiles a processor cuts a picture into at most, and at least."""

    most: int
    least: int = 1


def crop_rectangles(images: int, tokens: int, sizes: Sequence[Size], cut: Cut) -> list[torch.Tensor]:
    """What every token shows, one (n, 4) tensor per picture, its images one behind another.

    Args:
        images: images of the encoder call, all pictures together.
        tokens: an image's visual tokens in a row, and rows of them.
        sizes: (width, height) of the pictures.
        cut: size of a picture -> the part of it that each of its images shows.

    Raises:
        LostattnError: pictures of these sizes make another number of images.
    """
    frames = [cut(size) for size in sizes]
    result = sum(len(f) for f in frames)
    if images == len(sizes):  # the processor was told to cut nothing
        frames = [[WHOLE]] * len(sizes)
    elif images != result:
        raise LostattnError(
            f"pictures of (width, height) {[tuple(s) for s in sizes]} make {result} tiles but this call has {images}: give "
            "the sizes of all its pictures, and as `fit` how the processor cuts them"
        )
    return [torch.cat([grid_rectangles(tokens, tokens, frame) for frame in part]) for part in frames]


def grid_and_whole(columns: int, rows: int) -> list[Rectangle]:
    """Equal tiles row by row, then the whole picture; one tile alone is the whole picture."""
    if columns * rows == 1:
        return [WHOLE]
    tiles = [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)]
    return [*tiles, WHOLE]
