"""GLM-4.1V."""

from __future__ import annotations

from typing import Any

import transformers as T

from . import IMAGE, TEXT, VIDEO, TinyFamily
from .shared_rows import VISION, received_rows, rope, rows_inputs, rows_videos

SPECIAL = (
    "<|image|>",
    "<|video|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)
TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "image_start_token_id": 154,
    "image_end_token_id": 155,
    "video_start_token_id": 156,
    "video_end_token_id": 157,
}


def config() -> Any:
    """Rotary over half of every head."""
    vision = {**VISION, "image_size": 56}
    text = {**TEXT, "rope_parameters": {**rope(2, 1, 1), "partial_rotary_factor": 0.5}}
    return T.Glm4vConfig(text_config=text, vision_config=vision, **TOKENS)


def serve(config: Any, number: Any) -> None:
    """GLM's special tokens."""
    config.text_config.rope_parameters = {**rope(2, 3, 3), "partial_rotary_factor": 0.5}
    config.vision_config.out_hidden_size = config.text_config.hidden_size
    config.image_token_id, config.video_token_id = number("<|image|>"), number("<|video|>")
    for what in ("image", "video"):
        setattr(config, f"{what}_start_token_id", number(f"<|begin_of_{what}|>"))
        setattr(config, f"{what}_end_token_id", number(f"<|end_of_{what}|>"))


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures of up to 625 tokens."""
    pictures = T.Glm4vImageProcessor(size={"shortest_edge": 56 * 56 * 2, "longest_edge": 700 * 700 * 2})
    return T.Glm4vProcessor(pictures, words, T.Glm4vVideoProcessor(), chat_template=template)


TINY = TinyFamily(
    configs={"glm4v": config},
    tokens=12,
    size=(84, 112),
    inputs=rows_inputs(14),
    videos=rows_videos(14, timed=True, token=IMAGE),
    placeholder="<|begin_of_image|><|image|><|end_of_image|>",
    serve=serve,
    processor=processor,
    received=received_rows,
    special=SPECIAL,
)
