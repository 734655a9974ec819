"""Qwen3-VL, dense and with experts."""

from __future__ import annotations

from typing import Any

from . import Published

IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}
TEXT: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "dtype": "bfloat16",
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 12288,
    "max_position_embeddings": 262144,
    "model_type": "qwen3_vl_text",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    "rope_theta": 5000000,
    "use_cache": True,
    "vocab_size": 151936,
}
TOWER: dict[str, Any] = {  # that of the larger ones
    "deepstack_visual_indexes": [8, 16, 24],
    "depth": 27,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "in_channels": 3,
    "initializer_range": 0.02,
    "intermediate_size": 4304,
    "model_type": "qwen3_vl",
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "out_hidden_size": 4096,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
SMALL_TOWER: dict[str, Any] = {
    **TOWER,
    "deepstack_visual_indexes": [5, 11, 17],
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
}
EXPERTS = {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "model_type": "qwen3_vl_moe_text",
    "norm_topk_prob": True,
    "num_experts": 128,
    "num_experts_per_tok": 8,
}


def dense(tower: dict[str, Any], ties: bool = False, **text: int) -> dict[str, Any]:
    """A dense one, as wide as its tower's output."""
    decoder = {**TEXT, **text}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **IDS,
        "text_config": {**decoder, "tie_word_embeddings": True} if ties else decoder,
        "tie_word_embeddings": ties,
        "vision_config": {**tower, "out_hidden_size": decoder["hidden_size"]},
    }


def experts(**text: int) -> dict[str, Any]:
    """One with experts."""
    return {
        "architectures": ["Qwen3VLMoeForConditionalGeneration"],
        "model_type": "qwen3_vl_moe",
        **IDS,
        "text_config": {**TEXT, **EXPERTS, **text},
        "tie_word_embeddings": False,
        "vision_config": {**TOWER, "model_type": "qwen3_vl_moe", "out_hidden_size": text["hidden_size"]},
    }


MODELS = {
    "Qwen3-VL-2B": Published(
        dense(
            SMALL_TOWER, True, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16
        ),
        "Qwen3-1.7B, the decoder inside; sgl_jax's Qwen3VLVisionConfig (the tower); its number of weights",
        shrunken=True,
    ),
    "Qwen3-VL-4B": Published(
        dense(SMALL_TOWER, True, hidden_size=2560, intermediate_size=9728), "a public copy (QWEN3VL_4B_CONFIG)"
    ),
    "Qwen3-VL-8B": Published(dense(TOWER), "a public copy in a report of the checkpoint"),
    "Qwen3-VL-32B": Published(
        dense(TOWER, hidden_size=5120, intermediate_size=25600, num_hidden_layers=64, num_attention_heads=64),
        "a public copy (the text encoder of MiniMax H3)",
    ),
    "Qwen3-VL-30B-A3B": Published(
        experts(
            hidden_size=2048,
            intermediate_size=6144,
            moe_intermediate_size=768,
            num_hidden_layers=48,
            num_key_value_heads=4,
        ),
        "a public copy in a report of the checkpoint",
        shrunken=True,
    ),
    "Qwen3-VL-235B-A22B": Published(
        experts(
            moe_intermediate_size=1536,
            hidden_size=4096,
            num_attention_heads=64,
            num_hidden_layers=94,
            num_key_value_heads=4,
        ),
        "a public report of the checkpoint, as transformers prints it; github.com/ai-dynamo/aiconfigurator "
        "src/aiconfigurator/model_configs/Qwen--Qwen3-VL-235B-A22B-Thinking_config.json",
    ),
}
