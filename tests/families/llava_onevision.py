"""LLaVA-OneVision."""

from __future__ import annotations

from typing import Any

import torch
import transformers as T

from . import IMAGE, PINPOINTS, SIGLIP, TEXT, VIDEO, Inputs, TinyFamily, TinyVideos
from .shared_llava import PUBLISHED, received_patches, received_tiles, serve_squares, tiled_inputs


def config() -> Any:
    """Up to four tiles."""
    return T.LlavaOnevisionConfig(
        text_config={**TEXT, "model_type": "qwen2"},
        vision_config=SIGLIP,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def processor(config: Any, words: Any, template: str) -> Any:
    """Base picture and tiles."""
    side = config.vision_config.image_size
    square = {"height": side, "width": side}
    pictures = T.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=config.image_grid_pinpoints)
    return T.LlavaOnevisionProcessor(
        pictures,
        words,
        T.LlavaOnevisionVideoProcessor(size=square),
        num_image_tokens=(side // 14) ** 2,
        chat_template=template,
        vision_feature_select_strategy="full",
    )


def videos(count: int, g: torch.Generator) -> Inputs:
    """Three frames of 4 x 4 patches each, which become 2 x 2 tokens."""
    return {"pixel_values_videos": torch.randn(count, 3, 3, 56, 56, generator=g)}


def received_frames(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
    """Squares of four patches of every frame; the line break receives none."""
    patches = torch.stack(received_patches(config, inputs, weights, pool)).view(-1, 3, 2, 2, 2, 2)
    return [torch.nn.functional.pad(x.mean((2, 4)).flatten(), (0, 1)) for x in patches]


TINY = TinyFamily(
    configs={"llava_onevision": config},
    tokens=16 + 4 * 9,
    size=(112, 56),
    inputs=tiled_inputs,
    placeholder="<image>",
    serve=serve_squares(168),
    processor=processor,
    received=received_tiles,
    videos=TinyVideos(((13,), (13,)), videos, received_frames),
    published=PUBLISHED,
)
