"""config.json files as published on the Hub, cut down to what decides their shape; `PAPER` names the paper's 15 models.

`unconfirmed`: known from the model's paper or from the code that made it, not compared with a copy of the file itself.
"""

from __future__ import annotations

from typing import Any

QWEN: dict[str, Any] = {  # Qwen/Qwen2.5-VL-7B-Instruct: the decoder's keys stand at top level
    "architectures": ["Qwen2_5_VLForConditionalGeneration"], "attention_dropout": 0.0, "hidden_act": "silu",
    "hidden_size": 3584, "image_token_id": 151655, "intermediate_size": 18944, "max_position_embeddings": 128000,
    "max_window_layers": 28, "model_type": "qwen2_5_vl", "num_attention_heads": 28, "num_hidden_layers": 28,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.41.2",
    "use_sliding_window": False, "video_token_id": 151656, "vision_end_token_id": 151653, "vision_start_token_id": 151652,
    "vision_config": {
        "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "in_chans": 3,
        "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 152064,
}  # fmt: skip
QWEN_3B: dict[str, Any] = {  # Qwen/Qwen2.5-VL-3B-Instruct
    **QWEN, "hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16, "num_hidden_layers": 36,
    "num_key_value_heads": 2, "max_window_layers": 70, "tie_word_embeddings": True, "vocab_size": 151936,
    "vision_config": {**QWEN["vision_config"], "out_hidden_size": 2048},
}  # fmt: skip
QWEN_32B: dict[str, Any] = {  # Qwen/Qwen2.5-VL-32B-Instruct; unconfirmed: its tower's depth and heads, max_window_layers, ties
    **QWEN, "hidden_size": 5120, "intermediate_size": 27648, "num_attention_heads": 40, "num_hidden_layers": 64,
    "num_key_value_heads": 8, "max_window_layers": 64,
    "vision_config": {**QWEN["vision_config"], "out_hidden_size": 5120, "intermediate_size": 3456},
}  # fmt: skip
CLIP_L: dict[str, Any] = {
    "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000,
}  # fmt: skip
VICUNA: dict[str, Any] = {
    "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096,
    "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16", "vocab_size": 32064,
}  # fmt: skip
LLAVA: dict[str, Any] = {  # llava-hf/llava-1.5-7b-hf: layers and heads are those that Llama has by default
    "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
    "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu", "text_config": VICUNA,
    "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
    "vision_config": CLIP_L, "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064,
}  # fmt: skip
YI: dict[str, Any] = {  # Yi-VL-6B in the llava form: Yi-6B and CLIP ViT-H/14 at 448 pixels; unconfirmed
    **LLAVA, "image_token_index": 64000, "pad_token_id": 64001,
    "text_config": {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
        "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-05, "rope_theta": 5000000.0, "torch_dtype": "bfloat16",
        "vocab_size": 64064,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {
        **CLIP_L, "hidden_size": 1280, "image_size": 448, "intermediate_size": 5120, "num_hidden_layers": 32,
        "projection_dim": 1024,
    },
    "vocab_size": 64064,
}  # fmt: skip
NEXT_VICUNA: dict[str, Any] = {  # llava-hf/llava-v1.6-vicuna-7b-hf; unconfirmed: the pinpoints
    "architectures": ["LlavaNextForConditionalGeneration"], "ignore_index": -100,
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]], "image_token_index": 32000,
    "model_type": "llava_next", "projector_hidden_act": "gelu", "text_config": VICUNA, "tie_word_embeddings": False,
    "torch_dtype": "float16", "use_image_newline_parameter": True, "vision_config": CLIP_L, "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default", "vocab_size": 32064,
}  # fmt: skip
NEXT_MISTRAL: dict[str, Any] = {  # llava-hf/llava-v1.6-mistral-7b-hf, Mistral's defaults elsewhere; unconfirmed: text_config
    **NEXT_VICUNA,
    "text_config": {
        "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2", "architectures": ["MistralForCausalLM"],
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral", "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None, "torch_dtype": "bfloat16",
        "vocab_size": 32064,
    },
}  # fmt: skip
ONEVISION: dict[str, Any] = {  # llava-hf/llava-onevision-qwen2-7b-ov-hf
    "architectures": ["LlavaOnevisionForConditionalGeneration"], "ignore_index": -100,
    "image_grid_pinpoints": [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)], "image_token_index": 151646,
    "model_type": "llava_onevision", "projector_hidden_act": "gelu",
    "text_config": {
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 18944, "max_window_layers": 28,
        "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "rope_theta": 1000000.0, "torch_dtype": "bfloat16", "vocab_size": 152000,
    },
    "tie_word_embeddings": False, "torch_dtype": "float16", "video_token_index": 151647,
    "vision_aspect_ratio": "anyres_max_9",
    "vision_config": {
        "hidden_size": 1152, "image_size": 384, "intermediate_size": 4304, "model_type": "siglip_vision_model",
        "num_attention_heads": 16, "num_hidden_layers": 26, "patch_size": 14, "vision_use_head": False,
    },
    "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
}  # fmt: skip

# Tunes have the shape of what they were tuned from.
PAPER: dict[str, dict[str, Any]] = {
    "Qwen2.5-VL-3B": QWEN_3B,
    "Qwen2.5-VL-7B": QWEN,
    "Qwen2.5-VL-32B": QWEN_32B,
    "CoF-sft-7B": QWEN,
    "CoF-rl-7B": QWEN,
    "Reverse": QWEN_3B,  # its authors' evaluation scripts call it Qwen2.5-VL-3B
    "MM-Eureka-7B": QWEN,
    "MM-Eureka-32B": QWEN_32B,
    "Orsta-7B": QWEN,
    "Ocean-R1-7B": QWEN,
    "LLaVA-1.5-7B": LLAVA,
    "Yi-VL-6B": YI,
    "LLaVA-1.6-Mistral-7B": NEXT_MISTRAL,
    "LLaVA-1.6-Vicuna-7B": NEXT_VICUNA,
    "LLaVA-OneVision-7B": ONEVISION,
}
