"""Helpers of the families whose visual token is a square of patches, row by row: InternVL, Gemma, Mistral, Idefics."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .family import last_attention
from .pixels import normalised_to_gray, patch_complexity
from .plan import Pixels
from .tap import Tap


def square_complexity(images: Sequence[torch.Tensor], side: int, pixels: Pixels | None) -> list[torch.Tensor]:
    """Complexity of the side x side pixels that a token covers, (n,) per picture (3, h, w), row by row.

    Pixels behind the last whole square do not count: the towers do not look at them either.
    """
    results = []
    for image in images:
        gray = normalised_to_gray(image, pixels)
        results.append(patch_complexity(gray.unfold(0, side, side).unfold(1, side, side)).flatten())
    return results


def square_order(rows: int, columns: int, side: int) -> torch.Tensor:
    """Numbers of the side x side patches of every token of a grid of patches, token by token, int64 (n side side,)."""
    numbers = torch.arange(rows * columns).view(rows, columns)
    numbers = numbers[: rows // side * side, : columns // side * side]
    return numbers.unflatten(1, (-1, side)).unflatten(0, (-1, side)).transpose(1, 2).flatten()


def square_tap(tower: torch.nn.Module, side: int, pool: str, skip: int = 0) -> Tap:
    """Listen to a tower's last layer, side x side patches of which are one token, behind `skip` other tokens."""
    return Tap(last_attention(tower), side**2, pool, skip)


def received_by_squares(tap: Tap) -> list[torch.Tensor]:
    """Mean attention that every token of every picture receives from the tokens of its picture, (n,) each."""
    sums = torch.cat(tap.received)
    return list(sums / sums.shape[1])
