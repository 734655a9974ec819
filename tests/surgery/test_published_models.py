"""Published models beside the paper's 15, every family and size: read, planned and predicted from their config alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers as T
from hub_configs import PAPER
from lostattn.patches.discover import names_of
from lostattn.patches.errors import LostattnError
from lostattn.patches.family import get_family
from lostattn.serving.model_size import read_size
from lostattn.serving.shape import Shape, model_shape
from lostattn.surgery.planner import make_plan
from lostattn.surgery.predict import predict
from lostattn.surgery.spec import PatchSpec
from published import find_models

MODELS = find_models()
# layers; those that keep keys and values; heads, KV heads, numbers of a head; the last layer of the default
SHAPES: dict[str, tuple[int, int, int, int, int, int]] = {
    "GLM-4.1V-9B": (40, 40, 32, 2, 128, 27),
    "GLM-4.1V-9B nested": (40, 40, 32, 2, 128, 27),
    "GLM-4.5V": (46, 46, 96, 8, 128, 27),
    "GLM-4.6V": (46, 46, 96, 8, 128, 27),
    "GLM-4.6V own form": (46, 46, 96, 8, 128, 27),
    "GLM-4.6V-Flash own form": (40, 40, 32, 2, 128, 27),
    "GLM-OCR": (16, 16, 16, 8, 128, 15),
    "Idefics3-8B": (32, 32, 32, 8, 128, 27),
    "InternVL3-1B": (24, 24, 14, 2, 64, 23),
    "InternVL3-2B": (28, 28, 12, 2, 128, 27),
    "InternVL3-8B": (28, 28, 28, 4, 128, 27),
    "InternVL3-14B": (48, 48, 40, 8, 128, 27),
    "InternVL3-38B": (64, 64, 40, 8, 128, 27),
    "InternVL3-78B": (80, 80, 64, 8, 128, 27),
    "LLaVA-1.5-13B": (40, 40, 40, 40, 128, 23),
    "LLaVA-1.6-Vicuna-13B": (40, 40, 40, 40, 128, 23),
    "LLaVA-1.6-34B": (60, 60, 56, 8, 128, 23),
    "LLaVA-NeXT-Llama-3-8B": (32, 32, 32, 8, 128, 23),
    "LLaVA-OneVision-0.5B": (24, 24, 14, 2, 64, 23),
    "LLaVA-OneVision-72B": (80, 80, 64, 8, 128, 27),
    "Mistral-Small-3.1-24B": (40, 40, 32, 8, 128, 27),
    "Qwen2-VL-2B": (28, 28, 12, 2, 128, 27),
    "Qwen2-VL-7B": (28, 28, 28, 4, 128, 27),
    "Qwen2-VL-72B": (80, 80, 64, 8, 128, 27),
    "Qwen2.5-VL-72B": (80, 80, 64, 8, 128, 27),
    "Qwen3-VL-2B": (28, 28, 16, 8, 128, 27),
    "Qwen3-VL-4B": (36, 36, 32, 8, 128, 27),
    "Qwen3-VL-8B": (36, 36, 32, 8, 128, 27),
    "Qwen3-VL-32B": (64, 64, 64, 8, 128, 27),
    "Qwen3-VL-30B-A3B": (48, 48, 32, 4, 128, 27),
    "Qwen3-VL-235B-A22B": (94, 94, 64, 4, 128, 27),
    "Qwen3.5-0.8B": (24, 6, 8, 2, 256, 23),
    "Qwen3.5-2B": (24, 6, 8, 2, 256, 23),
    "Qwen3.5-4B": (32, 8, 16, 4, 256, 27),
    "Qwen3.5-9B": (32, 8, 16, 4, 256, 27),
    "Qwen3.5-27B": (64, 16, 24, 4, 256, 27),
    "Qwen3.5-35B-A3B": (40, 10, 16, 2, 256, 27),
    "Qwen3.5-122B-A10B": (48, 12, 32, 2, 256, 27),
    "Qwen3.5-397B-A17B": (60, 15, 32, 2, 256, 27),
    "SmolVLM-256M": (30, 30, 9, 3, 64, 27),
    "SmolVLM-500M": (32, 32, 15, 5, 64, 27),
    "SmolVLM-2.2B": (24, 24, 32, 32, 64, 23),
    "SmolVLM2-256M": (30, 30, 9, 3, 64, 27),
    "SmolVLM2-500M": (32, 32, 15, 5, 64, 27),
    "SmolVLM2-2.2B": (24, 24, 32, 32, 64, 23),
    "gemma-3-4b": (34, 34, 8, 4, 256, 27),
    "gemma-3-12b": (48, 48, 16, 8, 256, 27),
    "gemma-3-27b": (62, 62, 32, 16, 128, 27),
}
FIRST = {  # of the default layers, by family; else 1
    "gemma3": 21,
    "idefics3": 21,
    "internvl": 21,
    "llava": 18,
    "llava_next": 18,
    "llava_onevision": 21,
    "mistral3": 21,
    "smolvlm": 21,
}
EXPERTS = {
    "GLM-4.5V": (128, 8),
    "GLM-4.6V": (128, 8),
    "GLM-4.6V own form": (128, 8),
    "Qwen3-VL-30B-A3B": (128, 8),
    "Qwen3-VL-235B-A22B": (128, 8),
    "Qwen3.5-35B-A3B": (256, 8),
    "Qwen3.5-122B-A10B": (256, 8),
    "Qwen3.5-397B-A17B": (512, 10),
}
WINDOWS = {"gemma-3-4b": 29, "gemma-3-12b": 40, "gemma-3-27b": 52}  # layers with a window of 1024
NOT_FOUND = {"gemma4"}  # families of which no copy of a config was found
WIDE = ("SmolVLM2-500M",)  # published in float32
WEIGHTS = {  # as many as the published files hold
    "GLM-4.5V": 107_710_933_120 - 45 * 128,  # without the routers' corrections, which are no weights
    "InternVL3-1B": 938_193_024,
    "Mistral-Small-3.1-24B": 24_011_361_280,
    "Qwen2-VL-2B": 2_208_985_600,
    "Qwen2-VL-7B": 8_291_375_616,
    "Qwen2-VL-72B": 73_405_560_320,
    "Qwen3-VL-2B": 2_127_532_032,
    "Qwen3-VL-8B": 8_767_123_696,
    "Qwen3-VL-30B-A3B": 31_070_754_032,
    "SmolVLM-256M": 256_484_928,
    "SmolVLM2-2.2B": 2_246_784_880,
    "gemma-3-4b": 4_300_079_472,
    "gemma-3-12b": 12_187_325_040,
    "gemma-3-27b": 27_432_406_640,
}
TIED = ("Qwen2-VL-2B", "Qwen3-VL-2B", "gemma-3-4b", "gemma-3-12b", "gemma-3-27b")  # of these


def copied(name: str) -> dict[str, Any]:
    """A config to be changed, as json gives it."""
    return json.loads(json.dumps(MODELS[name].config))


def attending(name: str) -> list[int]:
    """Layers with keys and values: every fourth where some are linear."""
    layers, few = SHAPES[name][:2]
    return list(range(layers)) if layers == few else list(range(3, layers, 4))


def shape(name: str) -> Shape:
    """As the code reads it."""
    return model_shape(copied(name))


def test_every_family_and_model_is_here() -> None:
    assert set(MODELS) == set(SHAPES)
    assert {shape(name).family.name for name in MODELS} == set(names_of("family")) - NOT_FOUND
    small = [shape(name).family.name for name, model in MODELS.items() if model.shrunken]
    paper = {config["model_type"] for config in PAPER.values()}  # which are all written small
    assert sorted(small) == sorted(set(names_of("family")) - paper - NOT_FOUND)
    assert all(model.source for model in MODELS.values())


@pytest.mark.parametrize("name", SHAPES)
def test_read_from_the_published_config(name: str) -> None:
    layers, few, heads, kv_heads, size, _ = SHAPES[name]
    found = shape(name)
    assert (found.layers, found.heads, found.kv_heads, found.head_dim) == (layers, heads, kv_heads, size)
    assert found.attending == attending(name) and len(found.attending) == few
    assert found.experts == EXPERTS.get(name)
    assert sum(layer.window == 1024 for layer in found.every) == WINDOWS.get(name, 0)
    assert found.dtype_bytes == (4 if name in WIDE else 2)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_counted(name: str) -> None:
    """InternVL 3 and Mistral Small keep an output layer of their own, which their files leave to the decoder to say."""
    found = read_size(copied(name), shape(name))
    assert found.total == WEIGHTS[name]
    assert bool(found.embedding) == (name not in TIED)


@pytest.mark.parametrize("name", SHAPES)
def test_planned_by_default(name: str) -> None:
    found = make_plan(PatchSpec(dynamic=True), MODELS[name].config, None)
    first, last = FIRST.get(found.plan.family, 1), SHAPES[name][-1]
    assert found.plan.layers == tuple(i for i in attending(name) if first <= i <= last)
    assert any("clipped" in note for note in found.notes) == (SHAPES[name][0] == last + 1 != 28)
    assert any("no attention" in note for note in found.notes) == (len(attending(name)) < SHAPES[name][0])


def slots(name: str, tokens: int) -> int:
    """KV slots of a plain request of so many tokens: a window keeps as many as it is wide."""
    near, every = WINDOWS.get(name, 0), SHAPES[name][1]
    return SHAPES[name][3] * ((every - near) * tokens + near * min(tokens, 1024))


@pytest.mark.parametrize("name", SHAPES)
def test_predicted_by_hand(name: str) -> None:
    """One summary is left of the picture in every layer, but in those whose window the request outgrows."""
    plan = make_plan(PatchSpec(layers="all", heads="all"), MODELS[name].config, None).plan
    assert list(plan.layers) == attending(name)
    number = 2 * SHAPES[name][4] * (4 if name in WIDE else 2)
    for visual, row in zip((256, 4096), predict(plan, shape(name), (256, 4096)), strict=True):
        saving = SHAPES[name][1] - (WINDOWS.get(name, 0) if visual + 128 > 1024 else 0)
        assert row.kv_bytes == slots(name, visual + 128) * number
        assert row.kv_bytes_saved == saving * SHAPES[name][3] * (visual - 1) * number


@pytest.mark.parametrize("name", SHAPES)
def test_later_transformers_write_the_same_shape(name: str, tmp_path: Path) -> None:
    kind = getattr(T, MODELS[name].config["architectures"][0].replace("ForConditionalGeneration", "Config"))
    kind.from_dict(copied(name)).save_pretrained(tmp_path)
    again = model_shape(json.loads((tmp_path / "config.json").read_text()))
    assert replace(again, dtype_bytes=2) == replace(shape(name), dtype_bytes=2)


def test_towers_are_told_by_their_class() -> None:
    """Idefics 3's published tower calls itself as the whole model; one of another family is still refused."""
    config = copied("Idefics3-8B")
    assert config["vision_config"]["model_type"] == "idefics3"
    assert model_shape(config).family is get_family("idefics3")
    other = copied("LLaVA-1.5-13B")
    other["vision_config"]["model_type"] = "pixtral"
    with pytest.raises(LostattnError, match="does not cover the vision tower 'pixtral'"):
        model_shape(other)
