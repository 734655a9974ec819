"""Newer families at full size: published configs, planned and predicted; no weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.byte_model import StepWeights, kv_bytes
from lostattn.serving.shape import model_shape
from lostattn.surgery.planner import make_plan
from lostattn.surgery.predict import predict, predict_decode
from lostattn.surgery.spec import PatchSpec

QWEN_TOWER: dict[str, Any] = {
    "depth": 27,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "in_channels": 3,
    "intermediate_size": 4304,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
HYBRID: dict[str, Any] = {  # what all Qwen3.5 and Qwen3.6 share
    "attention_bias": False,
    "attn_output_gate": True,
    "dtype": "bfloat16",
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262144,
    "mamba_ssm_dtype": "float32",
    "rms_norm_eps": 1e-06,
    "vocab_size": 248320,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "rope_type": "default",
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
    },
}
# The decoders are compared with public copies of the files, except where a line says `unconfirmed`.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen3-VL-30B-A3B": {
        "model_type": "qwen3_vl_moe",
        "image_token_id": 151655,
        "video_token_id": 151656,
        "tie_word_embeddings": False,
        "text_config": {
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "head_dim": 128,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "max_position_embeddings": 262144,
            "mlp_only_layers": [],
            "model_type": "qwen3_vl_moe_text",
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06,
            "rope_theta": 5000000,
            "vocab_size": 151936,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        },
        "vision_config": {**QWEN_TOWER, "out_hidden_size": 2048, "deepstack_visual_indexes": [8, 16, 24]},
    },
    "GLM-4.5V": {  # unconfirmed: text_config, which is that of GLM-4.5-Air with the rotary sections of the documentation
        "model_type": "glm4v_moe",
        "image_token_id": 151363,
        "video_token_id": 151364,
        "tie_word_embeddings": False,
        "text_config": {
            "attention_bias": True,
            "dtype": "bfloat16",
            "first_k_dense_replace": 1,
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 10944,
            "max_position_embeddings": 65536,
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
            "rms_norm_eps": 1e-05,
            "rope_scaling": {"rope_type": "default", "mrope_section": [8, 12, 12]},
            "rope_theta": 10000.0,
            "routed_scaling_factor": 1.0,
            "topk_group": 1,
            "use_qk_norm": False,
            "vocab_size": 151552,
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1536,
            "intermediate_size": 13696,
            "num_heads": 12,
            "out_hidden_size": 4096,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "image_size": 336,
        },
    },
    "Qwen3.6-27B": {
        "model_type": "qwen3_5",
        "image_token_id": 248056,
        "video_token_id": 248057,
        "tie_word_embeddings": False,
        "text_config": {
            **HYBRID,
            "model_type": "qwen3_5_text",
            "hidden_size": 5120,
            "intermediate_size": 17408,
            "linear_num_value_heads": 48,
            "num_attention_heads": 24,
            "num_hidden_layers": 64,
            "num_key_value_heads": 4,
        },
        "vision_config": {**QWEN_TOWER, "out_hidden_size": 5120, "deepstack_visual_indexes": []},
    },
    "Qwen3.5-35B-A3B": {
        "model_type": "qwen3_5_moe",
        "image_token_id": 248056,
        "video_token_id": 248057,
        "tie_word_embeddings": False,
        "text_config": {
            **HYBRID,
            "model_type": "qwen3_5_moe_text",
            "hidden_size": 2048,
            "linear_num_value_heads": 32,
            "moe_intermediate_size": 512,
            "num_attention_heads": 16,
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 40,
            "num_key_value_heads": 2,
            "shared_expert_intermediate_size": 512,
        },
        "vision_config": {**QWEN_TOWER, "out_hidden_size": 2048, "deepstack_visual_indexes": []},
    },
    "GLM-OCR": {  # unconfirmed: vision_config
        "model_type": "glm_ocr",
        "text_config": {
            "model_type": "glm_ocr_text",
            "attention_bias": False,
            "head_dim": 128,
            "hidden_size": 1536,
            "intermediate_size": 4608,
            "max_position_embeddings": 131072,
            "num_attention_heads": 16,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "dtype": "bfloat16",
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 10000},
            "vocab_size": 59392,
        },
        "vision_config": {},
    },
}
EVERY_FOURTH = tuple(range(3, 28, 4))
# layers, heads, KV heads, width of a head, experts, default layers that are patched, layers with keys and values
SHAPES: dict[str, tuple[int, int, int, int, tuple[int, int] | None, tuple[int, ...], int]] = {
    "Qwen3-VL-30B-A3B": (48, 32, 4, 128, (128, 8), tuple(range(1, 28)), 48),
    "GLM-4.5V": (46, 96, 8, 128, (128, 8), tuple(range(1, 28)), 46),
    "Qwen3.6-27B": (64, 24, 4, 256, None, EVERY_FOURTH, 16),
    "Qwen3.5-35B-A3B": (40, 16, 2, 256, (256, 8), EVERY_FOURTH, 10),
    "GLM-OCR": (16, 16, 8, 128, None, tuple(range(1, 16)), 16),
}


def config(name: str) -> dict[str, Any]:
    return copy.deepcopy(PUBLISHED[name])


@pytest.mark.parametrize("name", PUBLISHED)
def test_planned_and_predicted_at_full_size(name: str) -> None:
    layers, heads, kv_heads, dim, experts, default, kept = SHAPES[name]
    shape = model_shape(config(name))
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.experts) == (
        layers,
        heads,
        kv_heads,
        dim,
        experts,
    )
    assert len(shape.attending) == kept and shape.kv_groups == kept * kv_heads
    found = make_plan(PatchSpec(dynamic=True), config(name), None)
    assert found.plan.layers == default
    assert any("no attention" in note for note in found.notes) == (kept < layers)
    plan = make_plan(PatchSpec(layers="all", heads="all"), config(name), None).plan
    assert plan.layers == tuple(shape.attending) and plan.kv_groups == shape.kv_groups
    (row,) = predict(plan, shape, (4096,))
    assert row.kv_bytes == kept * kv_heads * (4096 + 128) * 2 * dim * 2
    assert row.kv_bytes_saved == kept * kv_heads * 4095 * 2 * dim * 2
    keys = 4096 + 128
    assert row.attention_flops == kept * heads * 4 * dim * keys * (keys + 1) / 2
    assert 0.8 < row.attention_flops_saved / row.attention_flops < 1
    assert kv_bytes(shape, plan, 128, 4096) == row.kv_bytes - row.kv_bytes_saved


@pytest.mark.parametrize("name", ["Qwen3.6-27B", "Qwen3.5-35B-A3B"])
def test_layers_without_attention_are_named(name: str) -> None:
    with pytest.raises(LostattnError, match="layers 4 have no attention.*that can be patched are 3,7,11"):
        make_plan(PatchSpec(layers=[3, 4], heads="all"), config(name), None)
    with pytest.raises(LostattnError, match="layer 2 has no attention.*: layers that can be patched are 3, 7"):
        make_plan(PatchSpec(heads={2: [0]}), config(name), None)
    with pytest.raises(LostattnError, match="2:0 does not exist.*KV heads 0-[13] in layers 3, 7, 11"):
        make_plan(PatchSpec(groups={2: [0]}), config(name), None)
    assert make_plan(PatchSpec(layers="0-8", heads="all"), config(name), None).plan.layers == (3, 7)


def test_a_step_reads_the_experts_that_its_tokens_choose() -> None:
    """Against counting: tokens that choose 2 of 4 experts, in all ways that a batch can."""
    weights = StepWeights(fixed=1000, experts=4_000_000, routing=(4, 2))
    pairs = [(a, b) for a in range(4) for b in range(a)]
    for batch, draws in ((1, [(p,) for p in pairs]), (2, [(p, q) for p in pairs for q in pairs])):
        mean = sum(len({e for pair in draw for e in pair}) for draw in draws) / len(draws)
        assert weights.read(batch) == 1000 + round(1_000_000 * mean)
    shape = model_shape(config("Qwen3-VL-30B-A3B"))
    plan = make_plan(PatchSpec(layers="all", heads="all"), config("Qwen3-VL-30B-A3B"), None).plan
    one, many = predict_decode(plan, shape, StepWeights(10, 1600, shape.experts or (1, 1)), (1024,), (1, 32))
    assert one.weight_bytes == 10 + 100 and many.weight_bytes == 10 + round(1600 * (1 - (15 / 16) ** 32))


def test_a_compressed_cache_is_refused() -> None:
    raw = config("GLM-4.5V")
    raw["text_config"]["kv_lora_rank"] = 512
    with pytest.raises(LostattnError, match="multi-head latent attention"):
        model_shape(raw)
    with pytest.raises(LostattnError, match="multi-head latent attention"):
        model_shape({"model_type": "kimi_k25", "text_config": {"kv_lora_rank": 512}})
