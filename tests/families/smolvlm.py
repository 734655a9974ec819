"""SmolVLM."""

from __future__ import annotations

from typing import Any

import pytest
import transformers as T

from . import IMAGE, TEXT, TOWER, TinyFamily
from .shared_squares import HALF, item_inputs, received_squares


def config() -> Any:
    """Four patches a token."""
    return T.SmolVLMConfig(
        text_config={**TEXT, "model_type": "llama"}, vision_config=dict(TOWER), image_token_id=IMAGE, pad_token_id=0
    )


def serve(config: Any, number: Any) -> None:
    """The image token's number."""
    config.image_token_id = number("<image>")


def processor(config: Any, words: Any, template: str) -> Any:
    """Up to 4 x 4 tiles and the whole picture."""
    pytest.importorskip("num2words")  # which this processor wants for video timestamps
    side = config.vision_config.image_size
    pictures = T.SmolVLMImageProcessor(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side}, **HALF)
    frames = T.SmolVLMVideoProcessor(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side})
    return T.SmolVLMProcessor(pictures, words, frames, image_seq_len=4, chat_template=template)


TINY = TinyFamily(
    configs={"smolvlm": config},
    tokens=20,
    size=(112, 28),
    inputs=item_inputs(5),
    placeholder="<image>",
    serve=serve,
    processor=processor,
    received=received_squares(4, 2),
    special=("<fake_token_around_image>", "<end_of_utterance>", "<global-img>"),
)
