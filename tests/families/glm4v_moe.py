"""GLM-4.5V."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import transformers as T

from . import TEXT, glm4v

EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "use_qk_norm": False,
}


def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """Decoder and tower: a first layer without experts, then four experts, two for a token, and one for all."""
    dense = glm4v.config()
    text = {**TEXT, **EXPERTS, "rope_parameters": dense.text_config.rope_parameters}
    return text, {k: v for k, v in dense.vision_config.to_dict().items() if k != "model_type"}


def config() -> Any:
    """With experts."""
    text, vision = parts()
    return T.Glm4vMoeConfig(text_config=text, vision_config=vision, **glm4v.TOKENS)


TINY = replace(glm4v.TINY, configs={"glm4v_moe": config})
