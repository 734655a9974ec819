"""The sizes of LLaVA-1.5, LLaVA-1.6 and LLaVA-OneVision that the paper has not."""

from __future__ import annotations

from typing import Any

from hub_configs import LLAVA, NEXT_VICUNA, ONEVISION, VICUNA

from . import Published


def within(config: dict[str, Any], decoder: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same with another decoder."""
    return {**config, **changes, "text_config": decoder}


def sizes(width: int, inner: int, layers: int, heads: int, kv_heads: int) -> dict[str, int]:
    """A decoder's, in one line."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


THIRTEEN = {**VICUNA, "_name_or_path": "lmsys/vicuna-13b-v1.5", **sizes(5120, 13824, 40, 40, 40)}
YI_34B = {
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "rope_theta": 5000000.0,
    "torch_dtype": "bfloat16",
    "vocab_size": 64064,
    **sizes(7168, 20480, 60, 56, 8),
}
LLAMA_3 = {
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "vocab_size": 128320,
    **sizes(4096, 14336, 32, 32, 8),
}
QWEN_HALF = {
    **ONEVISION["text_config"],
    **sizes(896, 4864, 24, 14, 2),
    "max_window_layers": 24,
    "tie_word_embeddings": True,
}
QWEN_72 = {**ONEVISION["text_config"], **sizes(8192, 29568, 80, 64, 8), "max_window_layers": 80}

INSIDE = "github.com/huggingface/transformers .../convert_llava_next_weights_to_hf.py names the decoder inside"
UNSEEN = "the decoder's numbers, which are those of the model inside"
MODELS = {
    "LLaVA-1.5-13B": Published(within(LLAVA, THIRTEEN), "vicuna-13b-v1.5, the decoder inside", UNSEEN),
    "LLaVA-1.6-Vicuna-13B": Published(within(NEXT_VICUNA, THIRTEEN), INSIDE, UNSEEN),
    "LLaVA-1.6-34B": Published(
        within(NEXT_VICUNA, YI_34B, image_token_index=64000, torch_dtype="bfloat16", vocab_size=64064),
        INSIDE,
        UNSEEN,
    ),
    "LLaVA-NeXT-Llama-3-8B": Published(
        within(NEXT_VICUNA, LLAMA_3, image_token_index=128256, torch_dtype="bfloat16", vocab_size=128320),
        INSIDE,
        UNSEEN,
    ),
    "LLaVA-OneVision-0.5B": Published(
        within(ONEVISION, QWEN_HALF, tie_word_embeddings=True), "Qwen2-0.5B, the decoder inside", UNSEEN
    ),
    "LLaVA-OneVision-72B": Published(within(ONEVISION, QWEN_72), "Qwen2-72B, the decoder inside", UNSEEN),
}
