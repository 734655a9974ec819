"""LLaVA-1.5, on the three decoders it is published with."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers as T

from . import CLIP, IMAGE, TEXT, Inputs, TinyFamily
from .shared_llava import MEAN, PUBLISHED, STD, received_patches, serve_squares


def config(text: str) -> Any:
    """CLIP, features before the last layer."""
    return T.LlavaConfig(
        text_config={**TEXT, "model_type": text}, vision_config=CLIP, image_token_index=IMAGE, vision_feature_layer=-2
    )


def inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
    """Squares of 4 x 4 patches."""
    return {"pixel_values": torch.randn(images, 3, 56, 56, generator=g)}


def processor(config: Any, words: Any, template: str) -> Any:
    """The shorter side resized, the centre cut out."""
    side = config.vision_config.image_size
    pictures = T.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=MEAN, image_std=STD
    )
    return T.LlavaProcessor(
        pictures,
        words,
        patch_size=14,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=template,
        num_additional_image_tokens=1,
    )


TINY = TinyFamily(
    configs={f"llava-{text}": partial(config, text) for text in ("llama", "mistral", "qwen2")},
    tokens=16,
    size=(56, 56),
    inputs=inputs,
    placeholder="<image>",
    serve=serve_squares(336),
    processor=processor,
    received=received_patches,
    published=PUBLISHED,
)
