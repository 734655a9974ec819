"""Qwen2-VL, Qwen3-VL and GLM-4.1V from configs as published: planned, cut, checked, loaded through both doors."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as T
from click.testing import CliRunner
from lostattn.patches import load_patched
from lostattn.patches.errors import LostattnError
from lostattn.patches.family import FAMILIES
from lostattn.serving.shape import model_shape
from lostattn.surgery.cli import main
from lostattn.surgery.planner import make_plan
from lostattn.surgery.predict import predict
from lostattn.surgery.spec import PatchSpec
from published import find_models
from safetensors.torch import load_file, save_file
from served import TEMPLATE, placeholder, tokenizer
from tiny import TINY

NAMES = {"qwen2_vl": "Qwen2-VL-7B", "qwen3_vl": "Qwen3-VL-8B", "glm4v": "GLM-4.1V-9B nested"}
PUBLISHED = {family: find_models()[name].config for family, name in NAMES.items()}
SHAPES = {"qwen2_vl": (28, 28, 4, 128), "qwen3_vl": (36, 32, 8, 128), "glm4v": (40, 32, 2, 128)}


def config_class(name: str) -> Any:
    return FAMILIES[name].plain_class.config_class


def again(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config as this transformers writes it."""
    config_class(config["model_type"]).from_dict(copy.deepcopy(config)).save_pretrained(folder)
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_planned_and_predicted_from_the_config_alone(name: str, rewritten: bool, tmp_path: Path) -> None:
    config = again(PUBLISHED[name], tmp_path) if rewritten else PUBLISHED[name]
    shape = model_shape(config)
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == SHAPES[name]
    found = make_plan(PatchSpec(dynamic=True), config, None)
    assert found.plan.layers == tuple(range(1, 28)) and found.plan.band is not None
    assert (found.plan.band.low, found.plan.band.high) == (0.3, 0.6)
    plan = make_plan(PatchSpec(layers="all", heads="all"), config, None).plan
    (row,) = predict(plan, shape, (1024,))
    assert row.kv_bytes_saved == shape.layers * shape.kv_heads * 1023 * 2 * shape.head_dim * shape.dtype_bytes


@pytest.mark.parametrize("name", ["qwen3_omni_moe", "paddleocr_vl", "qwen2_audio"])
def test_their_relatives_are_refused(name: str) -> None:
    with pytest.raises(LostattnError, match=f"model type '{name}' is not supported: the families are .*qwen3_vl"):
        model_shape({**PUBLISHED["qwen3_vl"], "model_type": name})


def shrunken(name: str, number: Any, tied: bool) -> dict[str, Any]:
    """The published form with small numbers."""
    raw = copy.deepcopy(PUBLISHED[name])
    text = raw.get("text_config", raw)
    text |= {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 320,
        "initializer_range": 0.2,
        "pad_token_id": number("<pad>"),
    }
    dim = 64 // 4
    if name == "qwen3_vl":
        dim = text["head_dim"] = 32
    turned = dim // 4 if name == "glm4v" else dim // 2  # GLM turns half of every head
    turning = "rope_scaling" if "rope_scaling" in text else "rope_parameters"
    text[turning]["mrope_section"] = [turned - 2 * (turned // 3), turned // 3, turned // 3]
    raw["tie_word_embeddings"] = text["tie_word_embeddings"] = tied
    tower = {"depth": 2, "num_heads": 2, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.2}
    own = {"qwen2_vl": {"embed_dim": 32, "hidden_size": 64}, "qwen3_vl": {"deepstack_visual_indexes": [0, 1]}}
    raw["vision_config"] |= {**tower, "out_hidden_size": 64, **own.get(name, {})}
    pads = ("<|image|>", "<|video|>") if name == "glm4v" else ("<|image_pad|>", "<|video_pad|>")
    raw["image_token_id"], raw["video_token_id"] = map(number, pads)
    return raw


def write(name: str, folder: Path, tied: bool) -> Path:
    """A random model whose folder looks like the published one: weights by their published names, the old config."""
    torch.manual_seed(0)
    words = tokenizer()
    raw = shrunken(name, words.convert_tokens_to_ids, tied)
    config = config_class(name).from_dict(copy.deepcopy(raw))
    config.dtype = "float32"
    T.AutoModelForImageTextToText.from_config(config).save_pretrained(folder, save_original_format=True)
    (folder / "config.json").write_text(json.dumps({**raw, "torch_dtype": "float32"}))
    template = TEMPLATE.replace("PICTURE", placeholder(name))
    TINY[name].processor(config, words, template).save_pretrained(folder)
    return folder


CHILD = """
import importlib.util, json, sys
found = importlib.util.find_spec
hidden = {"torchvision", "torchaudio", "lostattn"}
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in hidden else found(name, *rest)
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
folder, inputs, out = sys.argv[1:]
torch.set_num_threads(1)
model, info = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
assert "lostattn" not in sys.modules and type(model).__module__.startswith("transformers_modules.")
with torch.no_grad():
    save_file({"logits": model(**load_file(inputs)).logits.contiguous()}, out)
"""


@pytest.mark.parametrize(("name", "tied"), [("qwen2_vl", True), ("qwen3_vl", True), ("glm4v", False)])
def test_cut_checked_and_loaded_through_both_doors(name: str, tied: bool, tmp_path: Path) -> None:
    base, cut = write(name, tmp_path / "base", tied), tmp_path / "cut"
    options = ["--mode", "vision_attention", "--layers", "0-1", "--heads", "all", "--scores", "log"]
    for command in (["patch", *options, str(base), str(cut)], ["verify", str(cut)]):
        run = CliRunner().invoke(main, command)
        assert run.exit_code == 0, run.output
    plain, patched = T.AutoModelForImageTextToText.from_pretrained(base), load_patched(cut)
    ids = torch.tensor([[3, 4, *[plain.config.image_token_id] * 12, 5, 6]])
    patch = plain.config.vision_config.patch_size
    inputs = {
        "input_ids": ids,
        "pixel_values": torch.randn(48, 3 * 2 * patch**2),
        "image_grid_thw": torch.tensor([[1, 4, 12]]),
        "mm_token_type_ids": (ids == plain.config.image_token_id).int(),
    }
    with torch.no_grad():
        before, after = (model.eval()(**inputs).logits for model in (plain, patched))
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-5) and not torch.allclose(before, after, atol=1e-3)
    save_file(inputs, tmp_path / "inputs.safetensors")
    environment = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    arguments = [str(cut), str(tmp_path / "inputs.safetensors"), str(tmp_path / "out.safetensors")]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**environment, "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert torch.allclose(load_file(tmp_path / "out.safetensors")["logits"], after, atol=1e-6)
