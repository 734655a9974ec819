"""The paper's 15 models: planned from their published configs, and cut, asked and mended in shrunken form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as T
from click.testing import CliRunner
from hub_configs import PAPER
from lostattn.patches import load_patched
from lostattn.patches.family import get_family
from lostattn.serving.shape import model_shape
from lostattn.surgery.calibrate import calibrate
from lostattn.surgery.chat import Chat
from lostattn.surgery.checkpoint.write import read_patched, unpatch, verify
from lostattn.surgery.cli import main
from lostattn.surgery.demo.builtin import builtin_examples
from lostattn.surgery.patch import patch_checkpoint
from lostattn.surgery.planner import make_plan
from lostattn.surgery.predict import predict
from lostattn.surgery.spec import PatchSpec
from paper_models import shrunken, write_paper_model
from served import pictures, tokenizer

QWEN, LLAVA, ONEVISION = (range(1, 28), (0.3, 0.6)), (range(18, 24), (0.2, 0.8)), (range(21, 28), (0.3, 0.6))
# layers, heads, KV heads of the decoder; the paper's layers and band
SHAPES: dict[str, tuple[int, int, int, tuple[range, tuple[float, float]]]] = {
    "Qwen2.5-VL-3B": (36, 16, 2, QWEN), "Qwen2.5-VL-7B": (28, 28, 4, QWEN), "Qwen2.5-VL-32B": (64, 40, 8, QWEN),
    "CoF-sft-7B": (28, 28, 4, QWEN), "CoF-rl-7B": (28, 28, 4, QWEN), "Reverse": (36, 16, 2, QWEN),
    "MM-Eureka-7B": (28, 28, 4, QWEN), "MM-Eureka-32B": (64, 40, 8, QWEN), "Orsta-7B": (28, 28, 4, QWEN),
    "Ocean-R1-7B": (28, 28, 4, QWEN), "LLaVA-1.5-7B": (32, 32, 32, LLAVA), "Yi-VL-6B": (32, 32, 4, LLAVA),
    "LLaVA-1.6-Mistral-7B": (32, 32, 8, LLAVA), "LLaVA-1.6-Vicuna-7B": (32, 32, 32, LLAVA),
    "LLaVA-OneVision-7B": (28, 28, 4, ONEVISION),
}  # fmt: skip
QUESTION = "What is in the picture?"


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
    small = shrunken(name, tokenizer())
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


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def tokens(model: Any, inputs: dict[str, torch.Tensor]) -> list[int]:
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_cut_asked_and_mended(name: str, tmp_path: Path) -> None:
    base = write_paper_model(name, tmp_path / "base")
    before, plain = digests(base), Chat.load(base)
    family = get_family(plain.model.config.model_type)
    measured = calibrate(plain, family, builtin_examples(1), "one question").to_json()
    (tmp_path / "calibration.json").write_text(json.dumps(measured))
    picture = pictures(1, 1)[0].resize((112, 70))
    picture.save(tmp_path / "picture.png")
    inputs = plain.encode(picture, QUESTION)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    said = {"plain": tokens(plain.model, inputs)}
    for preset in ("paper", "reference", "efficient"):
        file = None if preset == "reference" else tmp_path / "calibration.json"
        out = tmp_path / preset
        plan = patch_checkpoint(base, out, preset=preset, layers="0-2", heads="0.2-0.8", calibration=file)
        assert plan.layers == (0, 1, 2) and bool(plan.band) == (preset == "reference")
        assert preset != "efficient" or all(plan.whole_groups(layer) for layer in plan.layers)
        assert verify(out).ok and read_patched(out).plan == plan
        patched, oracle = load_patched(out), load_patched(out, dtype=torch.float64)
        oracle.sap_settings.force("eager")
        said[preset] = tokens(patched, inputs)
        assert said[preset] == tokens(oracle, wide), preset
    assert len(set(map(tuple, said.values()))) > 1, "no patch changed a token, so equal tokens prove nothing"
    command = ["ask", str(tmp_path / "efficient"), QUESTION, "--image", str(tmp_path / "picture.png"), "--json"]
    asked = CliRunner().invoke(main, [*command, "--max-new-tokens", "6"])
    assert asked.exit_code == 0, asked.output
    (answer,) = json.loads(asked.stdout)
    assert answer["patched"] and answer["answer"] == Chat(patched, plain.processor, True).answer(picture, QUESTION, 6)
    unpatch(tmp_path / "efficient", tmp_path / "again")
    assert digests(tmp_path / "again") == before
