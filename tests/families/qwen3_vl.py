"""Qwen3-VL."""

from __future__ import annotations

from typing import Any

import transformers as T

from . import TEXT, TinyFamily
from .shared_rows import IDS, PLACEHOLDER, VISION, received_rows, rope, rows_inputs, rows_videos, serve_qwen


def config() -> Any:
    """Heads that are not width / heads wide; both vision layers feed the deepstack."""
    vision = {**VISION, "patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    text = {**TEXT, "head_dim": 32, "rope_parameters": rope(4, 6, 6)}
    return T.Qwen3VLConfig(text_config=text, vision_config=vision, **IDS)


def serve(config: Any, number: Any) -> None:
    """Heads of 64, as many as before."""
    config.text_config.head_dim = 64
    config.text_config.rope_parameters = {**rope(12, 10, 10), "mrope_interleaved": True}
    config.vision_config.out_hidden_size = config.text_config.hidden_size
    serve_qwen(config, number)


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures of 4 to 484 tokens."""
    size = {"shortest_edge": 64 * 64, "longest_edge": 704 * 704}
    pictures = T.Qwen2VLImageProcessor(patch_size=16, size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return T.Qwen3VLProcessor(pictures, words, T.Qwen3VLVideoProcessor(), chat_template=template)


TINY = TinyFamily(
    configs={"qwen3_vl": config},
    tokens=12,
    size=(96, 128),
    inputs=rows_inputs(16),
    videos=rows_videos(16, timed=True),
    placeholder=PLACEHOLDER,
    serve=serve,
    processor=processor,
    received=received_rows,
)
