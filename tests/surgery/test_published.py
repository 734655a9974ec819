"""What is new about newer families, at full size: experts, layers without attention; no weights."""

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
from published import find_models

MODELS = find_models()
EVERY_FOURTH = tuple(range(3, 28, 4))
# layers, heads, KV heads, width of a head, experts, default layers that are patched, layers with keys and values
SHAPES: dict[str, tuple[int, int, int, int, tuple[int, int] | None, tuple[int, ...], int]] = {
    "Qwen3-VL-30B-A3B": (48, 32, 4, 128, (128, 8), tuple(range(1, 28)), 48),
    "GLM-4.5V": (46, 96, 8, 128, (128, 8), tuple(range(1, 28)), 46),
    "Qwen3.5-27B": (64, 24, 4, 256, None, EVERY_FOURTH, 16),
    "Qwen3.5-35B-A3B": (40, 16, 2, 256, (256, 8), EVERY_FOURTH, 10),
    "GLM-OCR": (16, 16, 8, 128, None, tuple(range(1, 16)), 16),
}


def config(name: str) -> dict[str, Any]:
    return copy.deepcopy(MODELS[name].config)


@pytest.mark.parametrize("name", SHAPES)
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


@pytest.mark.parametrize("name", ["Qwen3.5-27B", "Qwen3.5-35B-A3B"])
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
