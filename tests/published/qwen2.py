"""Qwen2-VL, and the size of Qwen2.5-VL that the paper has not."""

from __future__ import annotations

from typing import Any

from hub_configs import QWEN

from . import Published

SEVEN: dict[str, Any] = {  # the tower's width is `embed_dim`, its `hidden_size` the decoder's
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "image_token_id": 151655,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "video_token_id": 151656,
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
    "vision_token_id": 151654,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "vocab_size": 152064,
}
TWO: dict[str, Any] = {
    **SEVEN,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vision_config": {**SEVEN["vision_config"], "hidden_size": 1536},
    "vocab_size": 151936,
}
BIG = {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "max_window_layers": 80,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
}
SEVENTY_TWO: dict[str, Any] = {**SEVEN, **BIG, "vision_config": {**SEVEN["vision_config"], "hidden_size": 8192}}
SEVENTY_TWO_5: dict[str, Any] = {
    **QWEN,
    **BIG,
    "vision_config": {**QWEN["vision_config"], "out_hidden_size": 8192, "intermediate_size": 3456},
}

ABOUT_7B = "github.com/zhenhua32/Qwen2-VL READ.md (the printed model)"
MODELS = {
    "Qwen2-VL-2B": Published(
        TWO,
        "Qwen2-1.5B, the decoder inside; its number of weights",
        "heads and rope sections, which are Qwen2-1.5B's and the paper's",
        shrunken=True,
    ),
    "Qwen2-VL-7B": Published(SEVEN, ABOUT_7B, "heads and rope sections, which are Qwen2-7B's and the paper's"),
    "Qwen2-VL-72B": Published(
        SEVENTY_TWO,
        "a public table of models (layers, KV heads, head size, width); its number of weights",
        "heads and rope sections, which are Qwen2-72B's and the paper's",
    ),
    "Qwen2.5-VL-72B": Published(
        SEVENTY_TWO_5,
        "Qwen2.5-72B, the decoder inside (github.com/QwenLM, technical report)",
        "the tower, ties",
    ),
}
