"""GLM-4.1V, 4.5V, 4.6V and GLM-OCR."""

from __future__ import annotations

from typing import Any

from . import Published

ENDS = {
    "image_start_token_id": 151339,
    "image_end_token_id": 151340,
    "video_start_token_id": 151341,
    "video_end_token_id": 151342,
}
IDS = {**ENDS, "image_token_id": 151363, "video_token_id": 151364}
TOWER: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "depth": 24,
    "hidden_act": "silu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 1536,
    "image_size": 336,
    "in_channels": 3,
    "initializer_range": 0.02,
    "intermediate_size": 13696,
    "num_heads": 12,
    "out_hidden_size": 4096,
    "patch_size": 14,
    "rms_norm_eps": 1e-05,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
NINE: dict[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": [151329, 151336, 151338],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 13696,
    "max_position_embeddings": 65536,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "pad_token_id": 151329,
    "rms_norm_eps": 1e-05,
    "use_cache": True,
    "vocab_size": 151552,
}
TURNED = {"rope_theta": 10000.0, "mrope_section": [8, 12, 12], "partial_rotary_factor": 0.5, "rope_type": "default"}
FLAT: dict[str, Any] = {  # as it was published first: the decoder's keys stand at top level
    "architectures": ["Glm4vForConditionalGeneration"],
    "model_type": "glm4v",
    **NINE,
    **ENDS,
    "image_token_id": 151343,
    "video_token_id": 151344,
    "partial_rotary_factor": 0.5,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "default", "mrope_section": [8, 12, 12]},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vision_config": TOWER,
}
NESTED: dict[str, Any] = {
    "architectures": ["Glm4vForConditionalGeneration"],
    "model_type": "glm4v",
    **IDS,
    "tie_word_embeddings": False,
    "text_config": {
        **NINE,
        "dtype": "bfloat16",
        "max_position_embeddings": 131072,
        "model_type": "glm4v_text",
        "rope_parameters": TURNED,
    },
    "vision_config": {**TOWER, "model_type": "glm4v_vision"},
}
EXPERTS: dict[str, Any] = {
    "architectures": ["Glm4vMoeForConditionalGeneration"],
    "dtype": "bfloat16",
    "model_type": "glm4v_moe",
    **IDS,
    "tie_word_embeddings": False,
    "text_config": {
        **NINE,
        "dtype": "bfloat16",
        "first_k_dense_replace": 1,
        "head_dim": 128,
        "intermediate_size": 10944,
        "model_type": "glm4v_moe_text",
        "moe_intermediate_size": 1408,
        "n_group": 1,
        "n_routed_experts": 128,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_attention_heads": 96,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 46,
        "num_key_value_heads": 8,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "default", "mrope_section": [8, 12, 12]},
        "routed_scaling_factor": 1.0,
        "topk_group": 1,
        "use_qk_norm": False,
    },
    "vision_config": {**TOWER, "intermediate_size": 10944, "model_type": "glm4v_moe_vision"},
}
LONGER: dict[str, Any] = {**EXPERTS, "text_config": {**EXPERTS["text_config"], "max_position_embeddings": 131072}}
OCR: dict[str, Any] = {
    "architectures": ["GlmOcrForConditionalGeneration"],
    "model_type": "glm_ocr",
    "tie_word_embeddings": False,
    "image_start_token_id": 59256,
    "image_end_token_id": 59257,
    "image_token_id": 59280,
    "video_start_token_id": 59258,
    "video_end_token_id": 59259,
    "video_token_id": 59281,
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "eos_token_id": [59246, 59253],
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 1536,
        "initializer_range": 0.02,
        "intermediate_size": 4608,
        "max_position_embeddings": 131072,
        "model_type": "glm_ocr_text",
        "num_attention_heads": 16,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "num_nextn_predict_layers": 1,
        "pad_token_id": 59246,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": 59392,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [16, 24, 24],
            "partial_rotary_factor": 1.0,
            "rope_theta": 10000,
        },
    },
    "vision_config": {
        "attention_bias": True,
        "depth": 24,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "image_size": 336,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "model_type": "glm_ocr_vision",
        "num_heads": 16,
        "out_hidden_size": 1536,
        "patch_size": 14,
        "rms_norm_eps": 1e-05,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}


def own_form(config: dict[str, Any]) -> dict[str, Any]:
    """The same model in the form that transformers calls GLM-4.6V."""
    return {**config, "architectures": ["Glm46VForConditionalGeneration"], "model_type": "glm46v"}


SCRIPT = "github.com/huggingface/transformers src/transformers/models/glm4v/convert_glm4v_mgt_weights_to_hf.py"
GLM_45 = "a public report of GLM-4.5V, as transformers prints it"
MODELS = {
    "GLM-4.1V-9B": Published(FLAT, f"{SCRIPT} of 4.53", "that the file is the script's, token numbers", shrunken=True),
    "GLM-4.1V-9B nested": Published(NESTED, f"{SCRIPT} of 4.57", "that the file is the script's"),
    "GLM-4.5V": Published(EXPERTS, GLM_45, shrunken=True),
    "GLM-4.6V": Published(LONGER, GLM_45, "that only the longest context differs from GLM-4.5V"),
    "GLM-4.6V own form": Published(own_form(LONGER), GLM_45, "that such a file was published"),
    "GLM-4.6V-Flash own form": Published(own_form(NESTED), SCRIPT, "that such a file was published", shrunken=True),
    "GLM-OCR": Published(OCR, "a public log that fetched the file", shrunken=True),
}
