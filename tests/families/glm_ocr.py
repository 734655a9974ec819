"""GLM-OCR."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import transformers as T

from . import TEXT, glm4v
from .shared_rows import rope


def config() -> Any:
    """Rotary over whole heads that are not width / heads wide; a tower with biases, as published ones have."""
    vision = {k: v for k, v in glm4v.config().vision_config.to_dict().items() if k != "model_type"}
    vision["attention_bias"] = True
    text = {**TEXT, "head_dim": 32, "rope_parameters": rope(4, 6, 6)}
    return T.GlmOcrConfig(text_config=text, vision_config=vision, **glm4v.TOKENS)


def serve(config: Any, number: Any) -> None:
    """GLM's special tokens; as in published models, the decoder is as wide as the merger inside: vLLM takes one for the other."""
    glm4v.serve(config, number)
    config.text_config.intermediate_size = 3 * config.vision_config.out_hidden_size
    config.text_config.rope_parameters = {
        **rope(4, 6, 6),
        "partial_rotary_factor": 1.0,
    }  # vLLM's default is half a head


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures of up to 625 tokens."""
    pictures = T.Glm46VImageProcessor(size={"shortest_edge": 56 * 56 * 2, "longest_edge": 700 * 700 * 2})
    return T.Glm46VProcessor(pictures, words, T.Glm46VVideoProcessor(), chat_template=template)


TINY = replace(glm4v.TINY, configs={"glm_ocr": config}, serve=serve, processor=processor)
