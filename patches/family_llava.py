"""Family `llava`: LLaVA-1.5 and other models of its form (Vicuna, Yi-VL, BakLLaVA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llava.modeling_llava import LlavaModel

from .family import Arguments, Family, register_family
from .geometry import Fit, Size, one_square
from .inner import SapInner
from .modeling import SapGeneration
from .plan import Pixels
from .tap import Tap
from .tiles import as_tokens, received_by_patches, tile_complexity, tower_tap


class SapLlavaConfig(LlavaConfig):
    """Configuration of a patched LLaVA; its plan is `sap`."""

    model_type = "sap_llava"


class SapLlavaModel(SapInner, LlavaModel):
    """LLaVA without head, patched."""

    config_class = SapLlavaConfig


class SapLlavaForConditionalGeneration(SapGeneration, LlavaForConditionalGeneration):
    """LLaVA with a Shared Attention Prior."""

    config_class = SapLlavaConfig
    inner_class = SapLlavaModel


def split(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """One picture per image, (3, h, w)."""
    return list(pixel_values)


def complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """One token per patch, row by row, of the picture as the tower sees it (cropped or padded by the processor).

    A CLS token among the visual tokens (`vision_feature_select_strategy: full`) shows no pixels: 0.

    The authors' script squashes the whole image to a square here instead, which misplaces the patches of other shapes.
    """
    patches = tile_complexity(torch.stack(images), inner.config.vision_config.patch_size, pixels)
    return list(as_tokens(patches, inner.config))


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """One token per patch, and the CLS token's own number where it is a visual token."""
    return list(received_by_patches(tap))


def rectangles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Fit | None) -> list[torch.Tensor]:
    """One token per patch; a CLS token shows nothing (NaN)."""
    squares = one_square(inner, arguments, sizes, fit)
    return [as_tokens(square.T, inner.config, torch.nan).T for square in squares]


FAMILY = register_family(
    Family(
        name="llava",
        title="LLaVA-1.5, Vicuna and Yi-VL in the Hugging Face llava form",
        config_class=SapLlavaConfig,
        model_class=SapLlavaForConditionalGeneration,
        layers=(18, 23),
        heads=(0.2, 0.8),
        rescaled=True,
        two_sided=False,
        split=split,
        complexity=complexity,
        tap=tower_tap,
        received=received,
        rectangles=rectangles,
        towers=("clip_vision_model", "siglip_vision_model"),
        text_models=("llama", "mistral", "qwen2"),
        video="has none",
    )
)
