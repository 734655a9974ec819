"""The paper's 15 models: planned from their published configs, and cut, asked and mended in shrunken form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import transformers as T
from cut_and_mended import cut_ask_and_mend
from hub_configs import PAPER
from lostattn.serving.shape import model_shape
from lostattn.surgery.planner import make_plan
from lostattn.surgery.predict import predict
from lostattn.surgery.spec import PatchSpec
from paper_models import shrunken, write_model
from served import tokenizer

QWEN, LLAVA, ONEVISION = (range(1, 28), (0.3, 0.6)), (range(18, 24), (0.2, 0.8)), (range(21, 28), (0.3, 0.6))
# layers, heads, KV heads of the decoder; the paper's layers and band
SHAPES: dict[str, tuple[int, int, int, tuple[range, tuple[float, float]]]] = {
    "Qwen2.5-VL-3B": (36, 16, 2, QWEN),
    "Qwen2.5-VL-7B": (28, 28, 4, QWEN),
    "Qwen2.5-VL-32B": (64, 40, 8, QWEN),
    "CoF-sft-7B": (28, 28, 4, QWEN),
    "CoF-rl-7B": (28, 28, 4, QWEN),
    "Reverse": (36, 16, 2, QWEN),
    "MM-Eureka-7B": (28, 28, 4, QWEN),
    "MM-Eureka-32B": (64, 40, 8, QWEN),
    "Orsta-7B": (28, 28, 4, QWEN),
    "Ocean-R1-7B": (28, 28, 4, QWEN),
    "LLaVA-1.5-7B": (32, 32, 32, LLAVA),
    "Yi-VL-6B": (32, 32, 4, LLAVA),
    "LLaVA-1.6-Mistral-7B": (32, 32, 8, LLAVA),
    "LLaVA-1.6-Vicuna-7B": (32, 32, 32, LLAVA),
    "LLaVA-OneVision-7B": (28, 28, 4, ONEVISION),
}


def test_these_are_the_fifteen() -> None:
    assert set(SHAPES) == set(PAPER) and len(PAPER) == 15


@pytest.mark.parametrize("name", SHAPES)
def test_planned_and_predicted_from_the_published_config_alone(name: str) -> None:
    layers, heads, kv_heads, (default, band) = SHAPES[name]
    shape = model_shape(PAPER[name])
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (layers, heads, kv_heads, 128)
    found = make_plan(PatchSpec(dynamic=True), PAPER[name], None)
    assert found.plan.layers == tuple(default) and found.plan.band is not None
    assert (found.plan.band.low, found.plan.band.high) == band
    assert not any("clipped" in note for note in found.notes)
    everywhere = make_plan(PatchSpec(layers="all", heads="all"), PAPER[name], None).plan
    (row,) = predict(everywhere, shape, (4096,))
    assert row.kv_bytes == layers * kv_heads * (4096 + 128) * 2 * 128 * 2
    assert row.kv_bytes_saved == layers * kv_heads * 4095 * 2 * 128 * 2  # one summary is left of the picture


@pytest.mark.parametrize("name", SHAPES)
def test_defaults_are_clipped_where_a_model_is_shallower(name: str) -> None:
    default = SHAPES[name][3][0]
    config = json.loads(json.dumps(PAPER[name]))
    config.get("text_config", config)["num_hidden_layers"] = default.stop - 2
    found = make_plan(PatchSpec(dynamic=True), config, None)
    assert found.plan.layers == tuple(range(default.start, default.stop - 2))
    assert any("clipped" in note and f"{default.stop - 2} layers" in note for note in found.notes)


@pytest.mark.parametrize("name", SHAPES)
def test_later_transformers_write_the_same_shape(name: str, tmp_path: Path) -> None:
    """Tunes were saved by other versions than their base, which nest or rename keys."""
    getattr(T, PAPER[name]["architectures"][0].replace("ForConditionalGeneration", "Config")).from_dict(
        json.loads(json.dumps(PAPER[name]))
    ).save_pretrained(tmp_path)
    again = model_shape(json.loads((tmp_path / "config.json").read_text()))
    assert replace(again, dtype_bytes=2) == model_shape(PAPER[name])


@pytest.mark.parametrize("name", SHAPES)
def test_shrunken_in_kind(name: str) -> None:
    """What decides how a model is cut is as in the published one."""
    real = model_shape(PAPER[name]).family.plain_class.config_class.from_dict(json.loads(json.dumps(PAPER[name])))
    small = shrunken(PAPER[name], tokenizer())
    a, b = real.get_text_config(), small.get_text_config()
    for key in ("model_type", "num_attention_heads", "num_key_value_heads", "hidden_act"):
        assert getattr(a, key) == getattr(b, key), key
    assert a.rope_parameters["rope_theta"] == b.rope_parameters["rope_theta"]
    if sections := a.rope_parameters.get("mrope_section"):
        assert [8 * n for n in b.rope_parameters["mrope_section"]] == list(sections)
    for key in ("tie_word_embeddings", "vision_feature_layer", "vision_feature_select_strategy", "vision_aspect_ratio"):
        assert getattr(real, key, None) == getattr(small, key, None), key
    for key in ("model_type", "patch_size", "window_size", "spatial_merge_size"):
        assert getattr(real.vision_config, key, None) == getattr(small.vision_config, key, None), key


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_cut_asked_and_mended(name: str, tmp_path: Path) -> None:
    cut_ask_and_mend(write_model(name, PAPER[name], tmp_path / "base"), tmp_path)
