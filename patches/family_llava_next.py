"""Family `llava_next`: LLaVA-1.6 (Vicuna and Mistral)."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

from .family import Arguments, Family, register_family
from .geometry import base_and_tiles
from .inner import SapInner
from .modeling import SapGeneration
from .plan import Pixels
from .tap import Tap
from .tiles import counts, received_by_patches, split_tiles, tile_complexity, tower_tap


class SapLlavaNextConfig(LlavaNextConfig):
    """Configuration of a patched LLaVA-NeXT; its plan is `sap`."""

    model_type = "sap_llava_next"


class SapLlavaNextModel(SapInner, LlavaNextModel):
    """LLaVA-NeXT without head, patched."""

    config_class = SapLlavaNextConfig


class SapLlavaNextForConditionalGeneration(SapGeneration, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT with a Shared Attention Prior."""

    config_class = SapLlavaNextConfig
    inner_class = SapLlavaNextModel


def _pack(inner: Any, values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Numbers per patch (pictures, patches) to numbers per visual token, by the model's own rearrangement.

    Line-break tokens show no pixels and get 0.
    """
    parts = values[..., None].split(counts(inner, arguments))
    zero = torch.zeros(1, device=values.device)
    packed, _ = inner.pack_image_features(parts, arguments["image_sizes"], "full", image_newline=zero)
    return [x[:, 0] for x in packed]


def complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """Base picture first, then the tiles put together and unpadded."""
    return _pack(inner, tile_complexity(torch.cat(images), inner.config.vision_config.patch_size, pixels), arguments)


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """Every picture (base, tiles) is its own attention; their means stand side by side."""
    return _pack(inner, received_by_patches(tap), arguments)


FAMILY = register_family(
    Family(
        name="llava_next",
        title="LLaVA-1.6 (LLaVA-NeXT) Vicuna and Mistral",
        config_class=SapLlavaNextConfig,
        model_class=SapLlavaNextForConditionalGeneration,
        layers=(18, 23),
        heads=(0.2, 0.8),
        rescaled=True,
        two_sided=False,
        split=split_tiles,
        complexity=complexity,
        tap=tower_tap,
        received=received,
        rectangles=base_and_tiles,
        towers=("clip_vision_model", "siglip_vision_model"),
        text_models=("llama", "mistral", "qwen2"),
        video="has none",
    )
)
