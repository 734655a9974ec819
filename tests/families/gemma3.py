"""Gemma 3: image tokens see all of their image; sliding windows in most layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers as T

from . import IMAGE, SIGLIP, TEXT, Inputs, TinyFamily
from .shared_squares import HALF, name_tokens, received_squares

NAMES = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}


def config(window: int) -> Any:
    """Queries scaled otherwise than by the width of a head; nine tokens of four patches each."""
    text = {
        **TEXT,
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "sliding_window": window,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    vision = {**SIGLIP, "image_size": 84}
    return T.Gemma3Config(
        text_config=text,
        vision_config=vision,
        image_token_index=IMAGE,
        mm_tokens_per_image=9,
        boi_token_index=152,
        eoi_token_index=153,
    )


def inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
    """Squares of 6 x 6 patches."""
    return {
        "pixel_values": torch.randn(images, 3, 84, 84, generator=g),
        "token_type_ids": (input_ids == IMAGE).int(),
    }


def serve(config: Any, number: Any) -> None:
    """The special tokens' numbers."""
    config.boi_token_index, config.eoi_token_index = number("<start_of_image>"), number("<end_of_image>")
    config.image_token_index = number("<image_soft_token>")


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures stretched to one square."""
    pictures = T.Gemma3ImageProcessor(size={"height": 84, "width": 84}, **HALF)
    return T.Gemma3Processor(
        pictures, name_tokens(words, NAMES), image_seq_length=config.mm_tokens_per_image, chat_template=template
    )


TINY = TinyFamily(
    configs={"gemma3": partial(config, 512), "gemma3-window": partial(config, 12)},
    tokens=9,
    size=(84, 84),
    inputs=inputs,
    placeholder="<start_of_image>",
    serve=serve,
    processor=processor,
    received=received_squares(6, 2),
    special=("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    published=("vision_tower.", "vision_tower.vision_model."),
)
