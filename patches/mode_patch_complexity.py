"""Mode `patch_complexity`: edges and contrast inside each patch (paper C.3 ii)."""

from __future__ import annotations

import torch

from .mode import ImageContext, Mode, option, register_mode

# The authors divide by the span of the values plus this, so a constant image gives zeros.
SPAN_FLOOR = 1e-8


def weights(context: ImageContext) -> list[torch.Tensor]:
    """c(p) of every visual token; with `range=unit` min-maxed to [0, 1] per image, as the authors' code does."""
    result = context.complexity()
    if option(context, "range") == "unit":
        return [(c - c.min()) / (c.max() - c.min() + SPAN_FLOOR) for c in result]
    return result


MODE = register_mode(
    Mode(
        name="patch_complexity",
        summary="gradient magnitude plus variance of gray values inside the pixels that a token covers",
        weights=weights,
        options={"range": ("own", "unit")},
        reference={"range": "unit"},
    )
)
