"""Family `llava_onevision`: LLaVA-OneVision."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from .family import Arguments, Family, register_family
from .geometry import base_and_tiles
from .inner import SapInner
from .modeling import SapGeneration
from .plan import Pixels
from .tap import Tap
from .tiles import counts, received_by_patches, split_tiles, tile_complexity, tower_tap


class SapLlavaOnevisionConfig(LlavaOnevisionConfig):
    """Configuration of a patched LLaVA-OneVision; its plan is `sap`."""

    model_type = "sap_llava_onevision"


class SapLlavaOnevisionModel(SapInner, LlavaOnevisionModel):
    """LLaVA-OneVision without head, patched."""

    config_class = SapLlavaOnevisionConfig


class SapLlavaOnevisionForConditionalGeneration(SapGeneration, LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision with a Shared Attention Prior."""

    config_class = SapLlavaOnevisionConfig
    inner_class = SapLlavaOnevisionModel


def _pack(inner: Any, values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Numbers per patch (pictures, patches) to numbers per visual token, by the model's own rearrangement.

    Large images are shrunk bilinearly, as the model shrinks its features. Line-break tokens show no pixels and get 0.
    """
    parts = values[..., None].split(counts(inner, arguments))
    ratio = arguments.get("vision_aspect_ratio") or inner.config.vision_aspect_ratio
    zero = torch.zeros(1, device=values.device)
    packed, _ = inner.pack_image_features(
        parts, arguments["image_sizes"], image_newline=zero, vision_aspect_ratio=ratio
    )
    return [x[:, 0] for x in packed]


def complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """Base picture first, then the tiles put together, unpadded and, where the model does so, shrunk."""
    return _pack(inner, tile_complexity(torch.cat(images), inner.config.vision_config.patch_size, pixels), arguments)


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """Every picture (base, tiles) is its own attention. The authors' code cannot run this mode on OneVision at all."""
    return _pack(inner, received_by_patches(tap), arguments)


FAMILY = register_family(
    Family(
        name="llava_onevision",
        title="LLaVA-OneVision",
        config_class=SapLlavaOnevisionConfig,
        model_class=SapLlavaOnevisionForConditionalGeneration,
        layers=(21, 27),
        heads=(0.3, 0.6),
        rescaled=True,
        two_sided=True,
        split=split_tiles,
        complexity=complexity,
        tap=tower_tap,
        received=received,
        rectangles=base_and_tiles,
        towers=("siglip_vision_model", "clip_vision_model"),
        text_models=("qwen2", "llama", "mistral"),
    )
)
