"""Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

import torch
import transformers as T

from . import IMAGE, TEXT, VIDEO, Inputs, TinyFamily

ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}


def config() -> Any:
    """Two vision layers, one with windows."""
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "in_channels": 3, "out_hidden_size": 64, "window_size": 56,
        "fullatt_block_indexes": [1], "initializer_range": 0.2,
    }  # fmt: skip
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 152, "vision_end_token_id": 153}
    return T.Qwen2_5_VLConfig(text_config={**TEXT, "rope_parameters": ROPE}, vision_config=vision, **ids)


def inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
    """Images of 8 x 6 patches, 4 x 3 tokens."""
    return {
        "pixel_values": torch.randn(images * 48, 3 * 2 * 14 * 14, generator=g),
        "image_grid_thw": torch.tensor([[1, 8, 6]] * images),
        "mm_token_type_ids": (input_ids == IMAGE).int(),
    }


def serve(config: Any, number: Any) -> None:
    """Windows as wide as published ones."""
    config.text_config.rope_parameters = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    config.vision_config.out_hidden_size, config.vision_config.window_size = config.text_config.hidden_size, 112
    config.image_token_id, config.video_token_id = number("<|image_pad|>"), number("<|video_pad|>")
    config.vision_start_token_id, config.vision_end_token_id = number("<|vision_start|>"), number("<|vision_end|>")


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures of 4 to 625 tokens."""
    pictures = T.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=700 * 700)
    return T.Qwen2_5_VLProcessor(pictures, words, T.Qwen2VLVideoProcessor(), chat_template=template)


TINY = TinyFamily(
    configs={"qwen2_5_vl": config},
    tokens=12,
    size=(84, 112),
    inputs=inputs,
    placeholder="<|vision_start|><|image_pad|><|vision_end|>",
    serve=serve,
    processor=processor,
)
