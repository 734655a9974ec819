"""Mode `noise`: one Gaussian per visual token (paper C.3 iii), a pure function of seed and image content."""

from __future__ import annotations

import hashlib
import math

import torch

from .mode import ImageContext, Mode, option, register_mode


def weights(context: ImageContext) -> list[torch.Tensor]:
    """Standard normal numbers, the same on every machine, rank and server for one seed and image.

    With `law=dirichlet` the same numbers are turned into log-exponentials, whose softmax is a Dirichlet(1, ..., 1)
    sample: the law of the authors' code (which draws it from torch's generator, so the sample itself differs).
    """
    results = [gaussians(digest, n) for digest, n in zip(context.digests(), context.lengths, strict=True)]
    if option(context, "law") == "dirichlet":
        results = [torch.log(-torch.special.log_ndtr(-g)) for g in results]
    return [g.float().to(context.device) for g in results]


def gaussians(key: bytes, count: int) -> torch.Tensor:
    """`count` standard normal numbers that depend on nothing but the key: SHAKE-256 bits through Box-Muller.

    Returns:
        (count,) float64 on the CPU.
    """
    pairs = (count + 1) // 2
    bits = torch.frombuffer(bytearray(hashlib.shake_256(key).digest(16 * pairs)), dtype=torch.int64)
    unit = (((bits >> 11) & ((1 << 53) - 1)).double() + 0.5) / float(1 << 53)  # in (0, 1), both ends open
    radius, angle = torch.sqrt(-2 * torch.log(unit[:pairs])), 2 * math.pi * unit[pairs:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])[:count]


MODE = register_mode(
    Mode(
        name="noise",
        summary="one Gaussian per visual token, the same for a seed and an image everywhere",
        weights=weights,
        options={"law": ("normal", "dirichlet")},
        reference={"law": "dirichlet"},
    )
)
