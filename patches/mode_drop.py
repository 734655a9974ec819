"""Mode `drop`: visual keys are masked out of the patched heads, the limit of SAP when the prior's level falls without end.

In that limit a row that sees text attends to its text alone, and a row that sees none, such as those of an image in front
of all text, attends to the visual tokens that it sees, equally. One score far below every real one says both, exactly, in
every form of the attention and in a serving engine's running summaries.
"""

from __future__ import annotations

import torch

from .mode import ImageContext, Mode, register_mode

# exp(DROPPED - s) is 0 in float32 for every score s above DROPPED + 104; the number itself still fits float16.
DROPPED = -30000.0


def weights(context: ImageContext) -> list[torch.Tensor]:
    """The same number for every visual token, so low that no weight is left beside any text."""
    return [torch.full((n,), DROPPED, device=context.device, dtype=torch.float32) for n in context.lengths]


MODE = register_mode(
    Mode(
        name="drop",
        summary="visual tokens are masked out of the patched heads (control: how much of the image is needed at all)",
        weights=weights,
        needs_pixels=False,
        scores="raw",
    )
)
