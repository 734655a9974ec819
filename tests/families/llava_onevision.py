"""LLaVA-OneVision."""

from __future__ import annotations

from typing import Any

import transformers as T

from . import IMAGE, PINPOINTS, SIGLIP, TEXT, VIDEO, TinyFamily
from .shared_llava import PUBLISHED, received_tiles, serve_squares, tiled_inputs


def config() -> Any:
    """Up to four tiles."""
    return T.LlavaOnevisionConfig(
        text_config={**TEXT, "model_type": "qwen2"}, vision_config=SIGLIP, image_token_index=IMAGE, video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS, vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip


def processor(config: Any, words: Any, template: str) -> Any:
    """Base picture and tiles."""
    side = config.vision_config.image_size
    square = {"height": side, "width": side}
    pictures = T.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=config.image_grid_pinpoints)
    return T.LlavaOnevisionProcessor(
        pictures, words, T.LlavaOnevisionVideoProcessor(size=square), num_image_tokens=(side // 14) ** 2,
        chat_template=template, vision_feature_select_strategy="full",
    )  # fmt: skip


TINY = TinyFamily(
    configs={"llava_onevision": config},
    tokens=16 + 4 * 9,
    size=(112, 56),
    inputs=tiled_inputs,
    placeholder="<image>",
    serve=serve_squares(168),
    processor=processor,
    received=received_tiles,
    published=PUBLISHED,
)
