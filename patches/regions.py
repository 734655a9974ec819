"""From boxes in a picture to numbers per visual token."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .errors import LostattnError


def box_overlap(
    boxes: Sequence[Sequence[float]],
    original: tuple[float, float],
    resized: tuple[float, float],
    rows: int,
    columns: int,
) -> torch.Tensor:
    """Largest intersection over union of every patch of a grid with any of the boxes.

    Args:
        boxes: (x, y, width, height) in pixels of the original picture (COCO's form).
        original, resized: (width, height) of the picture before and after the image processor resized it.
        rows, columns: the grid of visual tokens that covers the resized picture.

    Returns:
        (rows * columns,) float32, row by row; zeros without boxes.

    Raises:
        LostattnError: a box with a negative side, or an empty picture or grid.
    """
    if min(*original, *resized, rows, columns) <= 0:
        raise LostattnError("box_overlap needs a picture and a grid that are not empty")
    result = torch.zeros(rows * columns, dtype=torch.float64)
    top, left = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    high, wide = resized[1] / rows, resized[0] / columns
    top, left = top.flatten() * high, left.flatten() * wide
    for x, y, width, height in boxes:
        if width < 0 or height < 0:
            raise LostattnError(f"the box {[x, y, width, height]} has a negative side: boxes are x, y, width, height")
        x, width = x * resized[0] / original[0], width * resized[0] / original[0]
        y, height = y * resized[1] / original[1], height * resized[1] / original[1]
        across = (torch.clamp(left + wide, max=x + width) - torch.clamp(left, min=x)).clamp_min(0)
        down = (torch.clamp(top + high, max=y + height) - torch.clamp(top, min=y)).clamp_min(0)
        shared = (across * down).double()
        result = torch.maximum(result, shared / (high * wide + width * height - shared))
    return result.float()
