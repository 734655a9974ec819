"""Qwen3.5: linear attention in some layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import transformers as T

from . import TEXT, qwen3_vl
from .shared_rows import IDS, VISION, rope, serve_qwen

KINDS = ["linear_attention", "full_attention", "linear_attention", "full_attention", "full_attention"]
LINEAR = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}


def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """Decoder and tower: layers 1, 3 and 4 have attention; rotary over a quarter of every head."""
    turned = {**rope(2, 1, 1), "partial_rotary_factor": 0.25, "mrope_interleaved": True}
    text = {
        **TEXT,
        **LINEAR,
        "head_dim": 32,
        "num_hidden_layers": len(KINDS),
        "layer_types": KINDS,
        "rope_parameters": turned,
    }
    return text, {**VISION, "patch_size": 16, "num_position_embeddings": 16}


def config() -> Any:
    """Dense."""
    text, vision = parts()
    return T.Qwen3_5Config(text_config=text, vision_config=vision, **IDS)


def serve(config: Any, number: Any) -> None:
    """Heads of 64, as many as before; linear attention of 128, the one width that vLLM's CPU kernels take."""
    config.text_config.head_dim = 64
    config.text_config.linear_key_head_dim = config.text_config.linear_value_head_dim = 128
    config.text_config.rope_parameters = {**rope(4, 2, 2), "partial_rotary_factor": 0.25, "mrope_interleaved": True}
    config.vision_config.out_hidden_size = config.text_config.hidden_size
    serve_qwen(config, number)


TINY = replace(
    qwen3_vl.TINY,
    configs={"qwen3_5": config},
    serve=serve,
    engine_dtype="bfloat16",
    rounding=1e-3,  # transformers computes linear attention in float32, in models of float64 too
    depth=len(KINDS),
    layers=tuple(i for i, kind in enumerate(KINDS) if kind == "full_attention"),
)
