"""Quantised checkpoints: no weight changes, so patching works; loading where the library can; the rest is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from answered import digit_answers
from lostattn.patches import load_patched
from lostattn.patches.errors import LostattnError
from lostattn.serving.byte_model import read_weight_bytes
from lostattn.surgery.chat import Chat
from lostattn.surgery.checkpoint.tensor_table import read_table
from lostattn.surgery.checkpoint.write import unpatch, verify
from lostattn.surgery.demo.demo import MODEL
from lostattn.surgery.patch import patch_checkpoint, prepare
from lostattn.surgery.serve import _check_cache
from lostattn.surgery.spec import PatchSpec
from quantised import PLAIN_PARTS, SCHEMES, quantise
from safetensors.torch import load_file, save_file
from served import pictures, write_checkpoint

FAMILIES = ("qwen2_5_vl", "llava-llama")
HEADS = {0: [0, 1, 2, 3], 1: [0, 3], 2: [2, 3]}
LOADED = ("fp8", "int4")  # weights alone rounded; of eight-bit integers the library knows no such form
needs_library = pytest.mark.skipif(
    find_spec("compressed_tensors") is None, reason="compressed-tensors is not installed"
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: write_checkpoint(name, folder / name) for name in FAMILIES}


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def inputs_of(chat: Chat) -> dict[str, torch.Tensor]:
    return chat.encode(pictures(1, 1)[0].resize((112, 84)), "What is this?")


def tokens(chat: Chat) -> list[int]:
    chat.model.generation_config.eos_token_id = None
    with torch.no_grad():
        out = chat.model.generate(**inputs_of(chat), max_new_tokens=6, do_sample=False)
    return out[0, -6:].tolist()


def changed(source: Path, **form: Any) -> Path:
    """The same checkpoint with other keys in quantization_config."""
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] |= form
    (source / "config.json").write_text(json.dumps(config))
    return source


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_patched_verified_and_mended(bases: dict[str, Path], family: str, scheme: str, tmp_path: Path) -> None:
    source, _ = quantise(bases[family], tmp_path / "source", scheme)
    names = read_table(source / "model.safetensors", "").tensors
    assert any(n.endswith(("qweight", "weight_packed", "weight_scale")) for n in names)
    before, notes = digests(source), prepare(source, PatchSpec(heads=HEADS)).planned.notes
    assert any("quantised" in note and SCHEMES[scheme][1]["quant_method"] in note for note in notes)
    patch_checkpoint(source, tmp_path / "out", heads=HEADS)
    assert verify(tmp_path / "out").ok
    assert digests(tmp_path / "out")["model.safetensors"] == before["model.safetensors"]
    patched = json.loads((tmp_path / "out" / "config.json").read_text())
    assert patched["quantization_config"] == SCHEMES[scheme][1]
    unpatch(tmp_path / "out", tmp_path / "again")
    assert digests(tmp_path / "again") == before


@pytest.mark.parametrize("scheme", SCHEMES)
def test_decode_reads_weights_as_they_are_stored(bases: dict[str, Path], scheme: str, tmp_path: Path) -> None:
    source, twin = quantise(bases["qwen2_5_vl"], tmp_path / "source", scheme)
    read = 0
    for name, t in load_file(source / "model.safetensors").items():
        if "visual" not in name and "embed_tokens" not in name:
            read += t.numel() * (2 if t.is_floating_point() and t.element_size() > 1 else t.element_size())
    assert read_weight_bytes(source, 2) == read < read_weight_bytes(twin, 2)


@needs_library
@pytest.mark.parametrize("scheme", LOADED)
@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_by_transformers(bases: dict[str, Path], family: str, scheme: str, tmp_path: Path) -> None:
    """Inputs are left unrounded, so that the plain twin has the same weights and the same numbers."""
    source, twin = quantise(bases[family], tmp_path / "source", scheme)
    group = {**SCHEMES[scheme][1]["config_groups"]["group_0"], "input_activations": None}
    changed(source, config_groups={"group_0": group})
    for folder in (source, twin):
        patch_checkpoint(folder, tmp_path / f"{folder.name}-sap", heads=HEADS)
    patch_checkpoint(source, tmp_path / "empty", layers="none")
    chat, oracle = Chat.load(tmp_path / "source-sap"), Chat.load(tmp_path / "source-twin-sap", attention="eager")
    assert tokens(chat) == tokens(oracle)
    plain, empty = Chat.load(source), Chat.load(tmp_path / "empty")
    with torch.no_grad():
        logits = [c.model(**inputs_of(c)).logits for c in (plain, empty, chat, oracle)]
    assert torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])
    assert torch.allclose(logits[2], logits[3], atol=2e-3)


@needs_library
@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_rounded_inputs(scheme: str, tmp_path: Path) -> None:
    """The demo's model: rounding weights and inputs to eight bits leaves its answers, patched as plain."""
    source, twin = quantise(MODEL, tmp_path / "source", scheme)
    said = []
    for folder in (source, twin):
        patch_checkpoint(folder, tmp_path / f"{folder.name}-sap", heads={0: [0, 1], 2: [0, 1, 2, 3]})
        said.append(digit_answers(Chat.load(tmp_path / f"{folder.name}-sap"), 24, seed=77))
    assert said[0] == said[1] and len(set(said[0])) > 2


@needs_library
def test_heads_are_ranked_on_a_quantised_model(bases: dict[str, Path], tmp_path: Path) -> None:
    source, _ = quantise(bases["qwen2_5_vl"], tmp_path / "source", "int4")
    assert patch_checkpoint(source, tmp_path / "out", layers="0-1", heads="0.3-0.6").layers == (0, 1)


@needs_library
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantised_vision_tower(
    bases: dict[str, Path], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`generate` calls the tower before the model, so that undoing the form in the model's first call comes too late."""
    monkeypatch.setattr(
        "quantised.is_quantised", lambda name: ".mlp." in name and "merger" not in name and name.endswith("weight")
    )
    monkeypatch.setitem(
        SCHEMES,
        "int8",
        (SCHEMES["int8"][0], SCHEMES["int8"][1] | {"ignore": ["re:.*(attn|merger|projector|lm_head).*"]}),
    )
    source, _ = quantise(bases[family], tmp_path / "source", "int8")
    names = read_table(source / "model.safetensors", "").tensors
    assert any("mlp" in n and "weight_scale" in n and any(part in n for part in PLAIN_PARTS) for n in names)
    patch_checkpoint(source, tmp_path / "out", heads=HEADS)
    assert len(tokens(Chat.load(tmp_path / "out"))) == 6


@pytest.mark.skipif(find_spec("optimum") is not None, reason="optimum is installed")
def test_a_form_whose_package_is_missing(bases: dict[str, Path], tmp_path: Path) -> None:
    source, _ = quantise(bases["llava-llama"], tmp_path / "source", "gptq")
    patch_checkpoint(source, tmp_path / "out", heads=HEADS)
    for load in (load_patched, Chat.load):
        with pytest.raises(LostattnError, match="optimum") as caught:
            load(tmp_path / "out")
        assert "\n" not in str(caught.value)


def test_a_quantised_cache_is_refused_by_who_reads_it(bases: dict[str, Path], tmp_path: Path) -> None:
    cache = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
    source = changed(quantise(bases["qwen2_5_vl"], tmp_path / "source", "int8")[0], kv_cache_scheme=cache)
    notes = prepare(source, PatchSpec(heads=HEADS)).planned.notes
    assert any("--kv-cache-dtype bfloat16" in note for note in notes)
    plan = patch_checkpoint(source, tmp_path / "out", heads=HEADS)
    with pytest.raises(LostattnError, match="kv_cache_scheme.*--kv-cache-dtype bfloat16"):
        load_patched(tmp_path / "out")
    with pytest.raises(LostattnError, match="--kv-cache-dtype bfloat16"):
        _check_cache(tmp_path / "out", plan, ["--max-model-len", "512"])
    _check_cache(tmp_path / "out", plan, ["--kv-cache-dtype", "bfloat16"])


def test_quantised_attention_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    source, _ = quantise(bases["qwen2_5_vl"], tmp_path / "source", "int8")
    group = {"targets": ["re:.*self_attn$"], "weights": None, "input_activations": {"num_bits": 8, "type": "float"}}
    changed(source, config_groups={**SCHEMES["int8"][1]["config_groups"], "attention": group})
    with pytest.raises(LostattnError, match="quantises attention itself"):
        patch_checkpoint(source, tmp_path / "out", heads=HEADS)
    assert not (tmp_path / "out").exists()


def test_the_projector_of_yi_vl_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    """Its published conversion puts norms where LLaVA has a matrix."""
    source = Path(shutil.copytree(bases["llava-llama"], tmp_path / "source"))
    tensors = load_file(source / "model.safetensors")
    norms = {f"multi_modal_projector.linear_{n}.weight": torch.ones(128) for n in (2, 4)}
    save_file(tensors | norms, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LostattnError, match="linear_4.*Yi-VL"):
        patch_checkpoint(source, tmp_path / "out", heads=HEADS)
    assert not (tmp_path / "out").exists()
