"""Gemma 3, Idefics 3, SmolVLM, InternVL 3 and Mistral Small 3.1."""

from __future__ import annotations

from typing import Any

from . import Published

SIGLIP: dict[str, Any] = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}


def gemma(**text: int) -> dict[str, Any]:
    """What a decoder does not say is Gemma3TextConfig's default: 8 heads of 256 and 4 KV heads in the 4B one."""
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "torch_dtype": "bfloat16",
        "vision_config": SIGLIP,
        "text_config": {
            "model_type": "gemma3_text",
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
            **text,
        },
    }


def llama(vocabulary: int, **text: Any) -> dict[str, Any]:
    """The decoder of Idefics 3 and SmolVLM."""
    return {
        "attention_bias": False,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "mlp_bias": False,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "bfloat16",
        "vocab_size": vocabulary,
        **text,
    }


IDEFICS: dict[str, Any] = {
    "architectures": ["Idefics3ForConditionalGeneration"],
    "image_token_id": 128257,
    "model_type": "idefics3",
    "scale_factor": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128259,
    "text_config": llama(
        128259,
        hidden_size=4096,
        intermediate_size=14336,
        max_position_embeddings=131072,
        num_attention_heads=32,
        num_hidden_layers=32,
        num_key_value_heads=8,
        pad_token_id=128002,
        rope_theta=500000.0,
        rope_scaling={
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    ),
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 364,
        "intermediate_size": 4304,
        "model_type": "idefics3",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}
SMALL_TOWER: dict[str, Any] = {  # its layers and their inner width are the default ones
    "hidden_size": 768,
    "image_size": 512,
    "max_image_size": {"longest_edge": 512},
    "num_attention_heads": 12,
    "patch_size": 16,
    "size": {"longest_edge": 2048},
    "tie_word_embeddings": False,
    "use_base_siglip": False,
}
LARGE_TOWER: dict[str, Any] = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
SMOL_256 = {
    "head_dim": 64,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
}
SMOL_500 = {
    **SMOL_256,
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_attention_heads": 15,
    "num_hidden_layers": 32,
    "num_key_value_heads": 5,
}
SMOL_2 = {  # its heads are those that Llama has by default
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "rope_theta": 130000.0,
    "max_position_embeddings": 8192,
}


def smol(
    kind: str, text: dict[str, Any], tower: dict[str, Any], scale: int, image: int = 49190, words: int = 49280
) -> dict[str, Any]:
    """A SmolVLM: the first ones were published as Idefics 3, SmolVLM2 under its own name."""
    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[kind]
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "image_token_id": image,
        "model_type": kind,
        "scale_factor": scale,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": words,
        "text_config": llama(words, pad_token_id=2, bos_token_id=1, eos_token_id=2, **text),
        "vision_config": {**tower, "model_type": "idefics3" if kind == "idefics3" else "smolvlm_vision"},
    }


INTERN_TOWER: dict[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "image_size": [448, 448],
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-06,
    "model_type": "internvl_vision",
    "norm_type": "layer_norm",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 24,
    "patch_size": [14, 14],
    "use_absolute_position_embeddings": True,
    "use_mask_token": False,
    "use_mean_pooling": True,
    "use_qk_norm": False,
}
SIX_B: dict[str, Any] = {
    **INTERN_TOWER,
    "attention_bias": False,
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "norm_type": "rms_norm",
    "num_attention_heads": 25,
    "num_hidden_layers": 45,
    "use_qk_norm": True,
}


def internvl(tower: dict[str, Any], **text: Any) -> dict[str, Any]:
    """With a decoder of Qwen2.5, if nothing else is said."""
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "image_token_id": 151667,
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "torch_dtype": "bfloat16",
        "vision_config": tower,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "model_type": "qwen2",
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"factor": 2.0, "rope_type": "dynamic"},
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 151674,
            **text,
        },
    }


def sizes(width: int, inner: int, layers: int, heads: int, kv_heads: int) -> dict[str, int]:
    """A decoder's, in one line."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


MISTRAL: dict[str, Any] = {
    "architectures": ["Mistral3ForConditionalGeneration"],
    "dtype": "bfloat16",
    "image_token_index": 10,
    "model_type": "mistral3",
    "multimodal_projector_bias": False,
    "projector_hidden_act": "gelu",
    "spatial_merge_size": 2,
    "text_config": {
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 5120,
        "initializer_range": 0.02,
        "intermediate_size": 32768,
        "max_position_embeddings": 131072,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000000.0,
        "sliding_window": None,
        "use_cache": True,
        "vocab_size": 131072,
    },
    "vision_config": {
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "image_size": 1540,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "model_type": "pixtral",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "rope_theta": 10000.0,
    },
    "vision_feature_layer": -1,
}

GEMMA = "github.com/huggingface/transformers src/transformers/models/gemma3/convert_gemma3_weights.py"
SMOL = "a public copy of SmolVLM2-500M's; tests of public readers (256M, 500M); mlx-vlm's tests (2.2B)"
INTERN = "github.com/huggingface/transformers src/transformers/models/internvl/convert_internvl_weights_to_hf.py"
FIRST = "that the first SmolVLMs' towers say idefics3, which transformers of then wrote"
INSIDE = "the decoder, which is that of Qwen2.5 inside"
MODELS = {
    "gemma-3-4b": Published(
        gemma(hidden_size=2560, intermediate_size=10240, num_hidden_layers=34),
        f"{GEMMA}; a public print of gemma-3-4b-it",
        shrunken=True,
    ),
    "gemma-3-12b": Published(gemma(**sizes(3840, 15360, 48, 16, 8)), GEMMA),
    "gemma-3-27b": Published(gemma(**sizes(5376, 21504, 62, 32, 16), head_dim=128, query_pre_attn_scalar=168), GEMMA),
    "Idefics3-8B": Published(
        IDEFICS,
        "github.com/huggingface/transformers .../idefics3/convert_idefics3_weights_to_hf.py; Llama-3.1-8B",
        "the tower and what it calls itself",
        shrunken=True,
    ),
    "SmolVLM-256M": Published(smol("idefics3", SMOL_256, SMALL_TOWER, 4), SMOL, FIRST),
    "SmolVLM-500M": Published(smol("idefics3", SMOL_500, SMALL_TOWER, 4), SMOL, FIRST),
    "SmolVLM-2.2B": Published(
        smol("idefics3", SMOL_2, LARGE_TOWER, 3, 49153, 49155),
        SMOL,
        f"tower, vocabulary, image token, rope's base; {FIRST}",
    ),
    "SmolVLM2-256M": Published(smol("smolvlm", SMOL_256, SMALL_TOWER, 4), SMOL, "that its form is that of 500M"),
    "SmolVLM2-500M": Published(
        {**smol("smolvlm", SMOL_500, SMALL_TOWER, 4), "torch_dtype": "float32"}, SMOL, shrunken=True
    ),
    "SmolVLM2-2.2B": Published(
        smol("smolvlm", SMOL_2, LARGE_TOWER, 3), f"{SMOL}; its number of weights", "rope's base"
    ),
    "InternVL3-1B": Published(
        internvl(INTERN_TOWER, **sizes(896, 4864, 24, 14, 2)),
        f"{INTERN}; a JAX port of InternVL3-1B-hf (the tower)",
        INSIDE,
    ),
    "InternVL3-2B": Published(
        internvl(INTERN_TOWER, **sizes(1536, 8960, 28, 12, 2)),
        f"{INTERN}; tests of tensorrt_model_connect (the decoder)",
        "the decoder's inner width",
    ),
    "InternVL3-8B": Published(
        internvl(INTERN_TOWER, **sizes(3584, 18944, 28, 28, 4)), f"{INTERN}; mlx-vlm's tests (the decoder)", "heads"
    ),
    "InternVL3-14B": Published(internvl(INTERN_TOWER, **sizes(5120, 13824, 48, 40, 8)), INTERN, INSIDE),
    "InternVL3-38B": Published(
        internvl(SIX_B, **sizes(5120, 27648, 64, 40, 8)), INTERN, f"{INSIDE}; the tower", shrunken=True
    ),
    "InternVL3-78B": Published(internvl(SIX_B, **sizes(8192, 29568, 80, 64, 8)), INTERN, f"{INSIDE}; the tower"),
    "Mistral-Small-3.1-24B": Published(
        MISTRAL,
        "github.com/kohya-ss/musubi-tuner, M3_CONFIG_JSON (a copy)",
        "that 3.1 has the same beside its weights' number",
        shrunken=True,
    ),
}
