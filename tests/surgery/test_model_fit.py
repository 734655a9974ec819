"""Configs that lie about the weights beside them: refused in a sentence, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lostattn.patches.errors import LostattnError
from lostattn.serving.shape import model_shape
from lostattn.surgery.checkpoint.hashing import sha256_file
from lostattn.surgery.checkpoint.manifest import MANIFEST
from lostattn.surgery.checkpoint.tensor_table import Tensor, read_table
from lostattn.surgery.checkpoint.write import verify
from lostattn.surgery.cli import main
from lostattn.surgery.model_fit import check_fit
from lostattn.surgery.patch import patch_checkpoint, prepare
from lostattn.surgery.spec import PatchSpec
from quantised import SCHEMES, quantise
from safetensors.torch import load_file, save_file
from served import write_checkpoint
from tiny import ONE_PER_FAMILY

Tables = dict[str, Tensor]


def tables(folder: Path) -> Tables:
    return {n: t for path in folder.glob("*.safetensors") for n, t in read_table(path, path.name).tensors.items()}


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("bases")
    return lambda name: folder / name if (folder / name).exists() else write_checkpoint(name, folder / name)


def refused(config: dict[str, Any], weights: Tables) -> str:
    with pytest.raises(LostattnError) as error:
        model_shape(config)
        check_fit(config, weights)
    assert "\n" not in str(error.value) and ": " in str(error.value)
    return str(error.value)


THOROUGH = ("llava-llama", "qwen2_5_vl", "qwen3_vl")
TEXT_LIES: list[tuple[str, Callable[[int], int]]] = [
    ("num_hidden_layers", lambda n: n + 1),
    ("num_hidden_layers", lambda n: n - 1),
    ("num_hidden_layers", lambda n: 10**12),
    ("num_hidden_layers", lambda n: 0),
    ("num_key_value_heads", lambda n: 2 * n),
    ("num_key_value_heads", lambda n: n // 2),
    ("num_key_value_heads", lambda n: -n),
    ("num_attention_heads", lambda n: 2 * n),
    ("num_attention_heads", lambda n: n // 2),
    ("num_attention_heads", lambda n: 0),
    ("hidden_size", lambda n: 2 * n),
    ("hidden_size", lambda n: n // 2),
    ("hidden_size", lambda n: 10**12),
    ("intermediate_size", lambda n: n + 8),
    ("vocab_size", lambda n: n - 1),
    ("vocab_size", lambda n: n + 64),
    ("vocab_size", lambda n: 0),
]
VISION_LIES: list[tuple[tuple[str, ...], Callable[[int], int]]] = [
    (("num_hidden_layers", "depth"), lambda n: n + 1),
    (("num_hidden_layers", "depth"), lambda n: 10**9),
    (("hidden_size",), lambda n: 2 * n),
    (("patch_size",), lambda n: 2 * n),
    (("num_attention_heads", "num_heads"), lambda n: -n),
]


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
def test_every_family(bases: Callable[[str], Path], name: str) -> None:
    """The true config passes; every lie that shapes can show is found."""
    config, weights = config_of(bases(name)), tables(bases(name))
    check_fit(config, weights)
    for field, lie in TEXT_LIES if name in THOROUGH else TEXT_LIES[::4]:
        text = config["text_config"]
        # without a head_dim of its own, as most published configs are, so that heads decide the sizes
        told = {k: v for k, v in text.items() if k not in ("head_dim", "layer_types")}
        refused({**config, "text_config": {**told, field: lie(text[field])}}, weights)
    for fields, lie in VISION_LIES if name in THOROUGH else VISION_LIES[:1]:
        vision = config["vision_config"]
        field = next((f for f in fields if isinstance(vision.get(f), int)), None)
        if field is not None:
            refused({**config, "vision_config": {**vision, field: lie(vision[field])}}, weights)
    refused({k: v for k, v in config.items() if k != "text_config"}, weights)
    refused({k: v for k, v in config.items() if k != "vision_config"}, weights)
    refused({"model_type": config["model_type"]}, weights)


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
def test_weights_that_are_missing_or_left_over(bases: Callable[[str], Path], name: str) -> None:
    config, weights = config_of(bases(name)), tables(bases(name))
    for end in ("embed_tokens.weight", "layers.1.self_attn.o_proj.weight"):
        gone = next(n for n in weights if n.endswith(end) and "vision" not in n and "visual" not in n)
        assert "the weights lack" in refused(config, {n: t for n, t in weights.items() if n != gone})
    more = weights | {"model.strange.weight": next(iter(weights.values()))}
    assert "strange" in refused(config, more)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava-llama"])
def test_quantised(bases: Callable[[str], Path], tmp_path: Path, name: str, scheme: str) -> None:
    """Sizes of packed weights are unpacked and compared too."""
    folder, _ = quantise(bases(name), tmp_path / "source", scheme)
    config, weights = config_of(folder), tables(folder)
    check_fit(config, weights)
    text = config["text_config"]
    refused({**config, "text_config": {**text, "num_hidden_layers": 80, "layer_types": None}}, weights)
    refused({**config, "text_config": {**text, "num_key_value_heads": text["num_attention_heads"]}}, weights)
    refused({**config, "text_config": {**text, "intermediate_size": 2 * text["intermediate_size"]}}, weights)
    stored = next(
        n for n in weights if "layers.1.self_attn.k_proj" in n and n.endswith(("weight", "qweight", "weight_packed"))
    )
    assert "lack" in refused(config, {n: t for n, t in weights.items() if not n.startswith(stored.rpartition(".")[0])})


def test_unknown_quantised_forms_are_not_judged(bases: Callable[[str], Path]) -> None:
    """bitsandbytes stores a matrix as one long column, and its state beside it."""
    folder = bases("llava-llama")
    config = {**config_of(folder), "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    weights: Tables = {}
    for name, tensor in tables(folder).items():
        if name.endswith("_proj.weight") and "layers." in name:
            weights[name] = Tensor("U8", (tensor.shape[0] * tensor.shape[1] // 2, 1), 0, 1)
            weights[f"{name}.absmax"] = weights[f"{name}.quant_state.bitsandbytes__nf4"] = Tensor("U8", (5,), 0, 5)
        else:
            weights[name] = tensor
    check_fit(config, weights)


def spoil(folder: Path, **text: Any) -> None:
    config = config_of(folder)
    config["text_config"] |= text
    (folder / "config.json").write_text(json.dumps(config))


def record(folder: Path) -> None:
    """Put config.json on record as it is: a folder that was patched with the lie in it."""
    raw, config = json.loads((folder / MANIFEST).read_text()), folder / "config.json"
    raw["files"]["config.json"] |= {"size": config.stat().st_size, "sha256": sha256_file(config)}
    (folder / MANIFEST).write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 80}, "80 layers, the weights hold 3"),
        ({"num_key_value_heads": 4}, "by the config"),
        ({"num_attention_heads": 8}, "by the config"),
        ({"vocab_size": 63}, "64 x 64 in the files and 63 x 64"),
    ],
)
def test_plan_patch_and_verify_say_so(src: Path, tmp_path: Path, change: dict[str, int], says: str) -> None:
    patch_checkpoint(src, tmp_path / "good", layers="1", heads="all")
    spoil(src, **change)
    for command in (["plan", str(src)], ["patch", str(src), str(tmp_path / "out")]):
        found = CliRunner().invoke(main, [*command, "--layers", "1", "--heads", "all"])
        assert found.exit_code == 2 and says in found.stderr and not (tmp_path / "out").exists()
    spoil(tmp_path / "good", **change)
    record(tmp_path / "good")
    assert any(check.level == "weights" and says in check.problem for check in verify(tmp_path / "good").problems)


def test_a_config_without_its_decoder(demo: Path, src: Path, tmp_path: Path) -> None:
    for folder in (demo, src):
        config = {k: v for k, v in config_of(folder).items() if k != "text_config"}
        assert "layers, the weights hold" in refused(config, tables(folder))


def test_no_output_layer_although_it_is_not_tied(whole: Path, tmp_path: Path) -> None:
    path = whole / "model.safetensors"
    tensors = load_file(path)
    save_file({n: t for n, t in tensors.items() if "lm_head" not in n}, path)
    config = config_of(whole)
    told = {
        **config,
        "tie_word_embeddings": False,
        "text_config": {**config["text_config"], "tie_word_embeddings": False},
    }
    (whole / "config.json").write_text(json.dumps(told))
    with pytest.raises(LostattnError, match="lack lm_head.weight.*tie_word_embeddings"):
        prepare(whole, PatchSpec(layers="1", heads="all"))
    (whole / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    prepare(whole, PatchSpec(layers="1", heads="all"))


def test_rotary_sections_count_heads(bases: Callable[[str], Path]) -> None:
    """Four heads as two: every shape is the same, but the sections of the rotary embedding are made for four."""
    folder = bases("qwen2_vl")
    config, weights = config_of(folder), tables(folder)
    text = {k: v for k, v in config["text_config"].items() if k not in ("head_dim", "layer_types")}
    check_fit({**config, "text_config": text}, weights)
    fewer = {
        **text,
        "num_attention_heads": text["num_attention_heads"] // 2,
        "num_key_value_heads": text["num_key_value_heads"] // 2,
    }
    assert "mrope_section" in refused({**config, "text_config": fewer}, weights)


def test_the_record_is_no_weight(demo: Path) -> None:
    assert MANIFEST not in tables(demo)
