"""Qwen3-VL with experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import transformers as T

from . import qwen3_vl
from .shared_rows import IDS

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}


def config() -> Any:
    """Four experts, two for a token; the middle layer has none."""
    dense = qwen3_vl.config()
    text = {k: v for k, v in dense.text_config.to_dict().items() if k != "model_type"}
    vision = {k: v for k, v in dense.vision_config.to_dict().items() if k != "model_type"}
    return T.Qwen3VLMoeConfig(text_config={**text, **EXPERTS, "mlp_only_layers": [1]}, vision_config=vision, **IDS)


TINY = replace(
    qwen3_vl.TINY, configs={"qwen3_vl_moe": config}, transposed=(".experts.gate_up_proj", ".experts.down_proj")
)
