"""From pixels to numbers per patch: gray values, patch complexity, and a digest of an image's content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from .errors import LostattnError
from .plan import Pixels

# Above this level bfloat16 no longer tells neighbouring 8-bit values of a CLIP-normalised image apart.
BRIGHTEST = 240
GRAY = (0.299, 0.587, 0.114)


def patch_complexity(gray: torch.Tensor) -> torch.Tensor:
    """c(p) = grad(p) + var(p) of paper C.3: mean absolute differences in both directions plus population variance.

    Args:
        gray: patches (..., h, w) with values in [0, 1]. A side of one pixel has no differences and adds 0.

    Returns:
        (...,) in the dtype of gray; 0 for a constant patch.
    """
    across = _mean_abs(gray.diff(dim=-1))
    down = _mean_abs(gray.diff(dim=-2))
    flat = gray.flatten(-2)  # torch.var takes seven times as long
    return across + down + (flat - flat.mean(-1, keepdim=True)).square_().mean(-1)


def _mean_abs(x: torch.Tensor) -> torch.Tensor:
    flat = x.abs().flatten(-2)
    return flat.mean(-1) if flat.shape[-1] else flat.sum(-1)


def grid_complexity(gray: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """`patch_complexity` of an image cut into rows x columns patches of equal whole size; the last ones take the rest.

    Args:
        gray: (height, width) in [0, 1].

    Returns:
        (rows * columns,), row by row.
    """
    height, width = gray.shape
    ys = [i * (height // rows) for i in range(rows)] + [height]
    xs = [i * (width // columns) for i in range(columns)] + [width]
    cells = [gray[a:b, c:d] for a, b in zip(ys, ys[1:], strict=False) for c, d in zip(xs, xs[1:], strict=False)]
    return torch.stack([patch_complexity(cell) for cell in cells])


def to_gray(rgb: torch.Tensor) -> torch.Tensor:
    """0.299 R + 0.587 G + 0.114 B of (..., 3, h, w) (ITU-R BT.601), values as they come."""
    return _mixed(rgb, GRAY)


def normalised_to_gray(normalised: torch.Tensor, pixels: Pixels | None) -> torch.Tensor:
    """Gray values in [0, 1], float32 (..., h, w), of (..., 3, h, w) as the image processor normalised it: `to_gray` of `to_rgb`
    in a third of the time, both being linear.

    Raises:
        LostattnError: the plan does not know how the processor normalises.
    """
    known = _known(pixels)
    unit = 1 / 255 / known.rescale
    gray = _mixed(normalised.float(), [g * s * unit for g, s in zip(GRAY, known.std, strict=True)])
    return gray.add_(sum(g * m * unit for g, m in zip(GRAY, known.mean, strict=True)))


def _mixed(x: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    red, green, blue = x.unbind(-3)
    return torch.mul(red, weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2])


def to_rgb(normalised: torch.Tensor, pixels: Pixels | None) -> torch.Tensor:
    """Undo the image processor's normalisation: (..., 3, h, w) float back to [0, 1], float32.

    Raises:
        LostattnError: the plan does not know how the processor normalises.
    """
    known = _known(pixels)
    mean = torch.tensor(known.mean, device=normalised.device, dtype=torch.float32).view(3, 1, 1)
    std = torch.tensor(known.std, device=normalised.device, dtype=torch.float32).view(3, 1, 1)
    return (normalised.float() * std + mean) * (1 / 255 / known.rescale)


def _known(pixels: Pixels | None) -> Pixels:
    if pixels is None:
        raise LostattnError(
            "this prior needs the pixels of the image, but the plan does not know how they were normalised: the patched "
            "folder had no preprocessor_config.json or processor_config.json; add it to the source and patch again"
        )
    return pixels


def content_digest(seed: int, normalised: torch.Tensor, pixels: Pixels | None) -> bytes:
    """SHA-256 of a seed and an image's 8-bit pixels, whichever float type they were stored in.

    Values are read back to 8-bit levels and clipped at `BRIGHTEST`, so float32, float16 and bfloat16 pixels of one image
    give one digest.

    Args:
        normalised: (..., 3, h, w) as the image processor made it.
    """
    levels = (to_rgb(normalised, pixels) * 255).round_().clamp_(0, BRIGHTEST).to(torch.uint8)
    digest = hashlib.sha256(f"lostattn noise 1 {seed} {tuple(levels.shape)}".encode())
    digest.update(levels.cpu().contiguous().numpy().tobytes())
    return digest.digest()
