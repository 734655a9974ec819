"""Qwen3.5 with experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import transformers as T

from . import qwen3_5
from .shared_rows import IDS

EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}


def config() -> Any:
    """Four experts, two for a token, and one for all."""
    text, vision = qwen3_5.parts()
    return T.Qwen3_5MoeConfig(text_config={**text, **EXPERTS}, vision_config=vision, **IDS)


def serve(config: Any, number: Any) -> None:
    """As without experts, with smaller weights, and every token asks all experts: a choice among them turns over where bfloat16
    rounds a router's scores, and answers then differ by more than rounding does, in transformers alone too.
    """
    qwen3_5.serve(config, number)
    config.text_config.num_experts_per_tok = config.text_config.num_experts
    config.text_config.initializer_range = 0.1


TINY = replace(qwen3_5.TINY, configs={"qwen3_5_moe": config}, serve=serve)
