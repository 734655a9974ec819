"""Qwen2-VL."""

from __future__ import annotations

from typing import Any

import transformers as T

from . import TEXT, TinyFamily
from .shared_rows import IDS, PLACEHOLDER, VISION, received_rows, rope, rows_inputs, rows_videos, serve_qwen


def config() -> Any:
    """Its tower calls its own width `embed_dim` and the decoder's `hidden_size`."""
    other = {k: v for k, v in VISION.items() if k not in ("intermediate_size", "out_hidden_size")}
    vision = {**other, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    return T.Qwen2VLConfig(text_config={**TEXT, "rope_parameters": rope(2, 3, 3)}, vision_config=vision, **IDS)


def serve(config: Any, number: Any) -> None:
    """Heads of 32."""
    config.text_config.rope_parameters = rope(4, 6, 6)
    config.vision_config.hidden_size = config.text_config.hidden_size
    serve_qwen(config, number)


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures of 4 to 625 tokens."""
    pictures = T.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=700 * 700)
    return T.Qwen2VLProcessor(pictures, words, T.Qwen2VLVideoProcessor(), chat_template=template)


TINY = TinyFamily(
    configs={"qwen2_vl": config},
    tokens=12,
    size=(84, 112),
    inputs=rows_inputs(14),
    videos=rows_videos(14, timed=False),
    placeholder=PLACEHOLDER,
    serve=serve,
    processor=processor,
    received=received_rows,
)
