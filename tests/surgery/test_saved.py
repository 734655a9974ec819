"""Patched models that were trained: steps, checkpointing, LoRA, and what `save_pretrained` of them writes."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from doors import answer, run
from lostattn.patches import LostattnError, load_patched
from lostattn.surgery.checkpoint.write import read_patched, unpatch, verify
from lostattn.surgery.hub.contents import read_contents

NAME = "llava-llama"


@pytest.fixture
def model(plain: Any) -> Any:
    return tiny.make_patched(plain(NAME), tiny.make_plan(NAME))


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def train(model: Any, inputs: dict[str, torch.Tensor], steps: int = 3) -> list[float]:
    """Losses of a few steps."""
    trained = [w for w in model.parameters() if w.requires_grad]
    optimizer, losses = torch.optim.SGD(trained, lr=0.02), []
    for _ in range(steps):
        loss = model.train()(**inputs, labels=inputs["input_ids"]).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(w.grad is None or torch.isfinite(w.grad).all() for w in trained)
        optimizer.step()
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("name", tiny.ONE_PER_FAMILY)
def test_a_saved_model_loads_verifies_and_can_be_undone(name: str, plain: Any, tmp_path: Path) -> None:
    model, inputs = tiny.make_patched(plain(name), tiny.make_plan(name)), tiny.make_inputs(name)
    train(model, inputs, steps=1)
    model.save_pretrained(tmp_path / "saved")
    assert verify(tmp_path / "saved").ok and read_patched(tmp_path / "saved").plan == model.sap_plan
    assert torch.equal(logits(load_patched(tmp_path / "saved"), inputs), logits(model, inputs))
    unpatch(tmp_path / "saved", tmp_path / "plain")
    base = type(plain(name))
    undone, info = base.from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    wanted = base(plain(name).config).eval()
    wanted.load_state_dict(model.state_dict())
    assert torch.equal(logits(undone, inputs), logits(wanted, inputs))


def test_all_doors_to_a_saved_folder(tiny_llava: Path, tmp_path: Path) -> None:
    """Saved by the installed code, opened without lostattn, saved there, and opened with it again."""
    from lostattn.surgery.patch import patch_checkpoint

    patch_checkpoint(tiny_llava, tmp_path / "patched", mode="uniform", layers=[1], heads="all")
    model = load_patched(tmp_path / "patched")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "preprocessor_config.json").is_file(), "the processor comes along"
    again = f"trust_remote_code=True)\nmodel.save_pretrained({str(tmp_path / 'again')!r}"
    _, module, remote = answer(run(tmp_path / "saved", tmp_path, lostattn=False, arguments=again))
    assert module.startswith("transformers_modules.")
    for folder in ("saved", "again"):
        assert verify(tmp_path / folder).ok, verify(tmp_path / folder).problems
        _, module, local = answer(run(tmp_path / folder, tmp_path, lostattn=True))
        assert module == "lostattn.patches.family_llava" and local == remote
    same = "modeling_sap.py"
    assert (tmp_path / "saved" / same).read_bytes() == (tmp_path / "again" / same).read_bytes()


def test_what_is_written_later_belongs_to_the_folder(model: Any, tmp_path: Path) -> None:
    """A processor may be saved, and a card written, before or after the model."""
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "README.md").write_text("mine\n")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine\n"
    (folder / "tokenizer.json").write_text("{}")
    (folder / "generation_config.json").write_text('{"max_new_tokens": 3}')
    assert verify(folder).ok
    contents = read_contents(folder)
    assert {"tokenizer.json", "generation_config.json", "modeling_sap.py", "model.safetensors"} <= set(contents.files)
    unpatch(folder, tmp_path / "plain")
    assert (tmp_path / "plain" / "tokenizer.json").is_file() and not (tmp_path / "plain" / "modeling_sap.py").exists()
    (folder / "modeling_sap.py").write_text("print('other code')\n")
    assert not verify(folder).ok


def test_saving_over_a_patched_folder_leaves_its_source_alone(tiny_llava: Path, tmp_path: Path) -> None:
    from lostattn.surgery.patch import patch_checkpoint

    source = tmp_path / "source"
    shutil.copytree(tiny_llava, source)
    before = {p.name: p.read_bytes() for p in source.iterdir() if p.is_file()}
    out = tmp_path / "patched"
    patch_checkpoint(source, out, mode="uniform", layers=[1], heads="all", weights="link")
    assert any(os.stat(p).st_nlink > 1 for p in out.glob("*.safetensors"))
    model = load_patched(out)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    model.save_pretrained(out, max_shard_size="100KB")
    assert {p.name: p.read_bytes() for p in source.iterdir() if p.is_file()} == before
    assert verify(out).ok


def test_push_to_hub_is_left_to_lostattn(model: Any, tmp_path: Path) -> None:
    with pytest.raises(LostattnError, match="lostattn push"):
        model.save_pretrained(tmp_path / "x", push_to_hub=True)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("queries", ["all", "after_image"])
def test_gradient_checkpointing_changes_nothing(queries: str, plain: Any) -> None:
    inputs, found = tiny.make_inputs(NAME), []
    for checkpointed in (False, True):
        model = tiny.make_patched(plain(NAME), tiny.make_plan(NAME, queries=queries))
        if checkpointed:
            model.gradient_checkpointing_enable()
        found.append((train(model, inputs), {k: w.detach().clone() for k, w in model.named_parameters()}))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5) and found[0][0][-1] < found[0][0][0]
    for key, weight in found[0][1].items():
        assert torch.allclose(weight, found[1][1][key], atol=1e-5), key


@pytest.mark.parametrize("scores", ["raw", "prob_rescaled"])
def test_lora_trains_saves_loads_and_merges(scores: str, plain: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    inputs = tiny.make_inputs(NAME)
    base = tiny.make_patched(plain(NAME), tiny.make_plan(NAME, scores=scores))
    base.save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    torch.manual_seed(0)
    model = peft.get_peft_model(load_patched(tmp_path / "base"), settings)
    losses = train(model, inputs, steps=4)
    assert losses[-1] < losses[0]
    wanted = logits(model, inputs)
    assert not torch.equal(wanted, logits(base, inputs))
    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(load_patched(tmp_path / "base"), tmp_path / "adapter")
    assert torch.equal(logits(again, inputs), wanted)
    merged = again.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert verify(tmp_path / "merged").ok
    loaded = load_patched(tmp_path / "merged")
    assert (logits(loaded, inputs) - wanted).abs().max() < 1e-4
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["sap"] == base.sap_plan.to_json()
    steps = loaded.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(steps, loaded.generate(**inputs, max_new_tokens=4, do_sample=False, use_cache=False))


def test_an_adapter_of_transformers_own_is_saved_alone(model: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    adapted = copy.deepcopy(model)
    try:
        adapted.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))
    except ValueError as error:
        if "version of PEFT" not in str(error):
            raise
        pytest.skip(str(error))
    adapted.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert not (tmp_path / "adapter" / "lostattn.json").exists()
