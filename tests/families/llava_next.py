"""LLaVA-1.6."""

from __future__ import annotations

from functools import partial
from typing import Any

import transformers as T

from . import CLIP, IMAGE, PINPOINTS, TEXT, TinyFamily
from .shared_llava import MEAN, PUBLISHED, STD, received_tiles, serve_squares, tiled_inputs


def config(text: str) -> Any:
    """Up to four tiles."""
    return T.LlavaNextConfig(
        text_config={**TEXT, "model_type": text},
        vision_config=CLIP,
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
    )


def processor(config: Any, words: Any, template: str) -> Any:
    """Base picture and tiles."""
    side = config.vision_config.image_size
    pictures = T.LlavaNextImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=MEAN,
        image_std=STD,
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    return T.LlavaNextProcessor(
        pictures,
        words,
        patch_size=14,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=template,
        num_additional_image_tokens=1,
    )


TINY = TinyFamily(
    configs={f"llava_next-{text}": partial(config, text) for text in ("mistral", "llama")},
    tokens=16 + 4 * 9,
    size=(112, 56),
    inputs=tiled_inputs,
    placeholder="<image>",
    serve=serve_squares(168),
    processor=processor,
    received=received_tiles,
    published=PUBLISHED,
)
