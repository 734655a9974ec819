"""Mistral Small 3.1."""

from __future__ import annotations

from typing import Any

import torch
import transformers as T

from . import IMAGE, TEXT, TOWER, Inputs, TinyFamily
from .shared_squares import HALF, square_mean

SIZES = [[112, 56], [56, 112]]  # (height, width), 8 tokens each


def config() -> Any:
    """Four patches a token."""
    text = {**TEXT, "model_type": "mistral", "tie_word_embeddings": False}
    vision = {**TOWER, "model_type": "pixtral", "image_size": 112}
    return T.Mistral3Config(text_config=text, vision_config=vision, image_token_index=IMAGE, tie_word_embeddings=False)


def inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
    """High and wide pictures on a canvas that fits both."""
    return {
        "pixel_values": torch.randn(images, 3, 112, 112, generator=g),
        "image_sizes": torch.tensor([SIZES[i % 2] for i in range(images)]),
    }


def received(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
    """All pictures in one row, each seeing itself alone."""
    found, start = [], 0
    for height, width in inputs["image_sizes"].tolist():
        end = start + (height // 14) * (width // 14)
        found.append(square_mean(weights[-1][0, :, start:end, start:end], height // 14, width // 14, 2, pool))
        start = end
    return found


def serve(config: Any, number: Any) -> None:
    """Pictures of up to 224 pixels."""
    config.vision_config.image_size = 224
    config.image_token_index = number("[IMG]")


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures keep their shape."""
    side = config.vision_config.image_size
    pictures = T.PixtralImageProcessor(size={"longest_edge": side}, patch_size={"height": 14, "width": 14}, **HALF)
    return T.PixtralProcessor(pictures, words, patch_size=14, spatial_merge_size=2, chat_template=template)


TINY = TinyFamily(
    configs={"mistral3": config},
    tokens=8,
    size=(56, 112),
    inputs=inputs,
    placeholder="[IMG]",
    serve=serve,
    processor=processor,
    received=received,
    special=("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
)
