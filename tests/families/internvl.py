"""InternVL 3."""

from __future__ import annotations

from typing import Any

import torch
import transformers as T

from . import IMAGE, TEXT, TOWER, Inputs, TinyFamily
from .shared_squares import HALF, name_tokens, received_squares

NAMES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def config() -> Any:
    """Four patches a token."""
    text = {**TEXT, "model_type": "qwen2", "tie_word_embeddings": False}
    return T.InternVLConfig(
        text_config=text, vision_config=dict(TOWER), image_token_id=IMAGE, image_seq_length=4, tie_word_embeddings=False
    )


def inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
    """Two tiles and a thumbnail of 4 x 4 patches each."""
    return {"pixel_values": torch.randn(images * 3, 3, 56, 56, generator=g)}


def serve(config: Any, number: Any) -> None:
    """Tiles of 8 x 8 patches, 16 tokens."""
    config.vision_config.image_size = (112, 112)
    config.image_seq_length = 16
    config.image_token_id = number("<IMG_CONTEXT>")


def processor(config: Any, words: Any, template: str) -> Any:
    """Up to four tiles and a thumbnail."""
    size = dict(zip(("height", "width"), config.vision_config.image_size, strict=True))
    pictures = T.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=4, **HALF)
    return T.InternVLProcessor(
        pictures,
        name_tokens(words, NAMES),
        T.InternVLVideoProcessor(size=size, **HALF),
        image_seq_length=config.image_seq_length,
        chat_template=template,
    )


TINY = TinyFamily(
    configs={"internvl": config},
    tokens=12,
    size=(112, 56),
    inputs=inputs,
    placeholder="<IMG_CONTEXT>",
    serve=serve,
    processor=processor,
    received=received_squares(4, 2, skip=1),
    special=("<img>", "</img>", "<IMG_CONTEXT>"),
)
