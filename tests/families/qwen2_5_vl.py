"""Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

import torch
import transformers as T
from transformers.vision_utils import get_vision_window_index

from . import TEXT, Inputs, TinyFamily
from .shared_rows import (
    IDS,
    PLACEHOLDER,
    VISION,
    received_rows,
    received_steps,
    rope,
    rows_inputs,
    rows_videos,
    serve_qwen,
)


def config() -> Any:
    """Two vision layers, one with windows."""
    vision = {**VISION, "window_size": 56, "fullatt_block_indexes": [1]}
    return T.Qwen2_5_VLConfig(text_config={**TEXT, "rope_parameters": rope(2, 3, 3)}, vision_config=vision, **IDS)


def serve(config: Any, number: Any) -> None:
    """Windows as wide as published ones."""
    config.text_config.rope_parameters = rope(4, 6, 6)
    config.vision_config.out_hidden_size, config.vision_config.window_size = config.text_config.hidden_size, 112
    serve_qwen(config, number)


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures of 4 to 625 tokens."""
    pictures = T.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=700 * 700)
    return T.Qwen2_5_VLProcessor(pictures, words, T.Qwen2VLVideoProcessor(), chat_template=template)


def received(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
    """The tower's tokens stand window by window."""
    found = received_rows(config, inputs, weights, pool)
    orders = [get_vision_window_index(grid[None], 2, 56, 14)[0] for grid in inputs["image_grid_thw"]]
    return [p[torch.argsort(order)] for p, order in zip(found, orders, strict=True)]


def received_steps_of_windows(
    config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str
) -> list[torch.Tensor]:
    """Window by window within every step; the order of a whole video goes on from step to step."""
    found = received_steps(config, inputs, weights, pool)
    orders = [get_vision_window_index(grid[None], 2, 56, 14)[0] for grid in inputs["video_grid_thw"]]
    return [p[torch.argsort(order)] for p, order in zip(found, orders, strict=True)]


TINY = TinyFamily(
    configs={"qwen2_5_vl": config},
    tokens=12,
    size=(84, 112),
    inputs=rows_inputs(14),
    videos=rows_videos(14, timed=False, received=received_steps_of_windows),
    placeholder=PLACEHOLDER,
    serve=serve,
    processor=processor,
    received=received,
)
