"""GLM-4.6V in its own form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import transformers as T

from . import glm4v, glm4v_moe


def config() -> Any:
    """Without experts."""
    dense = glm4v.config()
    return T.Glm46VConfig(
        text_config=dense.text_config.to_dict(), vision_config=dense.vision_config.to_dict(), **glm4v.TOKENS
    )


def with_experts() -> Any:
    """The same form with the parts of GLM-4.5V."""
    text, vision = glm4v_moe.parts()
    kinds = {"text_config": "glm4v_moe_text", "vision_config": "glm4v_moe_vision"}
    named = {k: {**v, "model_type": kinds[k]} for k, v in (("text_config", text), ("vision_config", vision))}
    return T.Glm46VConfig(**named, **glm4v.TOKENS)


def processor(config: Any, words: Any, template: str) -> Any:
    """Pictures of up to 625 tokens."""
    pictures = T.Glm46VImageProcessor(size={"shortest_edge": 56 * 56 * 2, "longest_edge": 700 * 700 * 2})
    return T.Glm46VProcessor(pictures, words, T.Glm46VVideoProcessor(), chat_template=template)


TINY = replace(glm4v.TINY, configs={"glm46v": config, "glm46v-moe": with_experts}, processor=processor)
