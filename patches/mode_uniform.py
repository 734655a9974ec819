"""Mode `uniform`: the same number for every visual token, the control that any informative prior has to beat."""

from __future__ import annotations

import torch

from .mode import ImageContext, Mode, register_mode


def weights(context: ImageContext) -> list[torch.Tensor]:
    """Zeros: under `raw` a score of 0, under `prob` 1/n, under `log` -log n plus the head's level."""
    return [torch.zeros(n, device=context.device, dtype=torch.float32) for n in context.lengths]


MODE = register_mode(
    Mode(
        name="uniform",
        summary="the same number for every visual token (control)",
        weights=weights,
        needs_pixels=False,
    )
)
