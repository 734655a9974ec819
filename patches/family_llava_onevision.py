"""Family `llava_onevision`: LLaVA-OneVision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from .family import Arguments, Family, Videos, register_family
from .geometry import Size, base_and_tiles, grid_rectangles
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


def split_videos(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Frames of every video (frames, 3, h, w)."""
    return list(pixel_values)


def _pool(inner: Any, values: torch.Tensor, videos: int) -> list[torch.Tensor]:
    """Numbers per patch (videos * frames, patches) to numbers per visual token: every frame is shrunk as the model shrinks its
    features, and one line break ends a video.
    """
    rows = inner.apply_pooling(values[..., None]).reshape(videos, -1)
    return list(torch.nn.functional.pad(rows, (0, 1)))


def video_complexity(
    inner: Any, videos: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """Frame by frame, shrunk; the line break shows no pixels and gets 0."""
    values = tile_complexity(torch.cat(videos), inner.config.vision_config.patch_size, pixels)
    return _pool(inner, values, len(videos))


def video_received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """Every frame is its own attention."""
    return _pool(inner, received_by_patches(tap), len(arguments["pixel_values"]))


def video_rectangles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Any) -> list[torch.Tensor]:
    """Every frame is stretched over the tower's square; nothing for the line break."""
    vision = inner.config.vision_config
    side = math.ceil(vision.image_size // vision.patch_size / 2)
    end = torch.full((1, 4), torch.nan, dtype=torch.float64)
    return [torch.cat([grid_rectangles(side, side).repeat(len(v), 1), end]) for v in arguments["pixel_values"]]


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
        videos=Videos(
            names={},
            split=split_videos,
            complexity=video_complexity,
            received=video_received,
            rectangles=video_rectangles,
        ),
        towers=("siglip_vision_model", "clip_vision_model"),
        text_models=("qwen2", "llama", "mistral"),
    )
)
