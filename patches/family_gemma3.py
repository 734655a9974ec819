"""Family `gemma3`: Gemma 3 with pictures (4B, 12B, 27B).

Visual tokens of a prompt see all tokens of their own picture, in most layers within a window. Where the processor pans and
scans, a picture and its crops are images of their own to the encoder, each with a prior of its own. The paper tested none of
these models: layers and heads are by default those that it gives for LLaVA-OneVision, clipped to the model's depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration
from transformers.models.gemma3.modeling_gemma3 import Gemma3Model

from .crops import crop_rectangles
from .family import Arguments, Family, register_family
from .geometry import WHOLE, Rectangle, Size
from .inner import SapInner
from .modeling import SapGeneration
from .plan import Pixels
from .squares import received_by_squares, square_complexity, square_order, square_tap
from .tap import Tap


class SapGemma3Config(Gemma3Config):
    """Configuration of a patched Gemma 3; its plan is `sap`."""

    model_type = "sap_gemma3"


class SapGemma3Model(SapInner, Gemma3Model):
    """Gemma 3 without head, patched."""

    config_class = SapGemma3Config


class SapGemma3ForConditionalGeneration(SapGeneration, Gemma3ForConditionalGeneration):
    """Gemma 3 with a Shared Attention Prior."""

    config_class = SapGemma3Config
    inner_class = SapGemma3Model


@dataclass(frozen=True)
class PanAndScan:
    """How a processor cuts long pictures, if it was told to: crops of at least so many pixels, so many at most."""

    smallest: int = 256
    most: int = 4
    ratio: float = 1.2

    def crops(self, size: Size) -> list[Rectangle]:
        """The whole picture, then its crops along the longer side, the last of them shorter by what is missing."""
        long, short = max(size), min(size)
        amount = min(max(2, min(long // self.smallest, math.floor(long / short + 0.5))), self.most)
        step = math.ceil(long / amount)
        if long / short < self.ratio or min(step, short) < self.smallest:
            return [WHOLE]
        ends = [(i * step / long, min((i + 1) * step / long, 1.0)) for i in range(amount)]
        return [WHOLE, *((a, 0.0, b, 1.0) if size[0] >= size[1] else (0.0, a, 1.0, b) for a, b in ends)]


def split(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Pictures and crops (3, h, w)."""
    return list(pixel_values)


def side(inner: Any) -> int:
    """Patches in a row, and in a column, that the model averages into one token."""
    return _square_patches(inner) // round(inner.config.mm_tokens_per_image**0.5)


def complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """One token per square of patches."""
    return square_complexity(images, side(inner) * inner.config.vision_config.patch_size, pixels)


def tap(inner: Any, pool: str) -> Tap:
    """The last layer's patches stand row by row."""
    return square_tap(inner.vision_tower, side(inner), pool)


def order(inner: Any, arguments: Arguments) -> torch.Tensor:
    """Squares of patches are averaged."""
    n = _square_patches(inner)
    return square_order(n, n, side(inner))


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """Every picture or crop is its own attention."""
    return received_by_squares(tap)


def rectangles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: PanAndScan | None) -> list[torch.Tensor]:
    """Every picture or crop is stretched to a square."""
    n = _square_patches(inner) // side(inner)
    return crop_rectangles(len(arguments["pixel_values"]), n, sizes, (fit or PanAndScan()).crops)


def _square_patches(inner: Any) -> int:
    vision = inner.config.vision_config
    return int(vision.image_size // vision.patch_size)


def read_pan_and_scan(processor: Any) -> PanAndScan:
    """From an image processor; what it leaves open is the default of the model's processor."""
    names = {"smallest": "min_crop_size", "most": "max_num_crops", "ratio": "min_ratio_to_activate"}
    stated = {ours: getattr(processor, f"pan_and_scan_{theirs}", None) for ours, theirs in names.items()}
    return PanAndScan(**{name: value for name, value in stated.items() if value is not None})


FAMILY = register_family(
    Family(
        name="gemma3",
        title="Gemma 3 with pictures (4B, 12B, 27B)",
        config_class=SapGemma3Config,
        model_class=SapGemma3ForConditionalGeneration,
        layers=(21, 27),
        heads=(0.3, 0.6),
        rescaled=True,
        two_sided=True,
        split=split,
        complexity=complexity,
        tap=tap,
        received=received,
        rectangles=rectangles,
        towers=("siglip_vision_model",),
        text_models=("gemma3_text",),
        video="has none",
        order=order,
        tiled=True,
        both_ways=True,
        fit=read_pan_and_scan,
        stacked_features=True,
    )
)
