"""A checkpoint patched by every preset, asked, verified and undone byte for byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from lostattn.patches import load_patched
from lostattn.patches.family import get_family
from lostattn.serving.shape import model_shape
from lostattn.surgery.calibrate import calibrate
from lostattn.surgery.chat import Chat
from lostattn.surgery.checkpoint.write import read_patched, unpatch, verify
from lostattn.surgery.cli import main
from lostattn.surgery.demo.builtin import builtin_examples
from lostattn.surgery.patch import patch_checkpoint
from served import pictures

QUESTION = "What is in the picture?"


def digests(folder: Path) -> dict[str, str]:
    """Of every file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def said(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[list[int], torch.Tensor]:
    """Six tokens, the likeliest each, and the logits of the first."""
    model.generation_config.eos_token_id = None
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=6, **options)
    return out.sequences[0, inputs["input_ids"].shape[1] :].tolist(), out.logits[0][0].double()


def oracle_of(folder: Path) -> Any:
    """The patched model in float64, its scores written out."""
    oracle = load_patched(folder, dtype=torch.float64)
    oracle.sap_settings.force("eager")
    if hasattr(oracle, "set_experts_implementation"):
        oracle.set_experts_implementation("eager")  # torch's grouped products know no float64
    return oracle


def cut(base: Path, folder: Path, preset: str) -> Path:
    """A folder patched by a preset in all layers with attention, by `calibration.json` where it wants to be told heads."""
    shape = model_shape(json.loads((base / "config.json").read_text()))
    file = None if preset == "reference" else folder / "calibration.json"
    options = {"layers": f"0-{shape.layers - 1}", "heads": "0.2-0.8", "calibration": file}
    plan = patch_checkpoint(base, folder / preset, preset=preset, **options)
    assert list(plan.layers) == shape.attending and bool(plan.band) == (preset == "reference")
    assert preset != "efficient" or all(plan.whole_groups(layer) for layer in plan.layers)
    assert verify(folder / preset).ok and read_patched(folder / preset).plan == plan
    return folder / preset


def cut_ask_and_mend(base: Path, folder: Path) -> None:
    """Every preset says in float32 what the oracle says; `ask` says the same; taken back, all is as before."""
    before, plain = digests(base), Chat.load(base)
    family = get_family(plain.model.config.model_type)
    measured = calibrate(plain, family, builtin_examples(1), "one question").to_json()
    (folder / "calibration.json").write_text(json.dumps(measured))
    picture = pictures(1, 1)[0].resize((112, 70))
    picture.save(folder / "picture.png")
    inputs = plain.encode(picture, QUESTION)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    _, unpatched = said(plain.model, inputs)
    for preset in ("paper", "reference", "efficient"):
        patched = load_patched(cut(base, folder, preset))
        (found, logits), (exact, right) = said(patched, inputs), said(oracle_of(folder / preset), wide)
        assert found == exact, preset
        changed, rounded = (logits - unpatched).abs().max(), (logits - right).abs().max()
        assert changed > 20 * rounded, (preset, changed, rounded)  # else equal tokens would prove nothing
    command = ["ask", str(folder / "efficient"), QUESTION, "--image", str(folder / "picture.png"), "--json"]
    asked = CliRunner().invoke(main, [*command, "--max-new-tokens", "6"])
    assert asked.exit_code == 0, asked.output
    (answer,) = json.loads(asked.stdout)
    assert answer["patched"] and answer["answer"] == Chat(patched, plain.processor, True).answer(picture, QUESTION, 6)
    unpatch(folder / "efficient", folder / "again")
    assert digests(folder / "again") == before
