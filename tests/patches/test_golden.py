"""Preset `reference` against recorded outputs of the authors' code: logits, chosen heads, tokens, priors."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lostattn.patches import load_patched, trace_heads, use_prior
from lostattn.patches.pixels import grid_complexity, to_gray
from lostattn.patches.regions import box_overlap
from lostattn.patches.tap import pool_blocks
from lostattn.surgery import patch_checkpoint
from safetensors.torch import load_file

SMALL = Path(__file__).parent.parent / "golden"
FULL = Path(__file__).parents[2].parent / "shared" / "golden"
MODES = {"complexity": "patch_complexity", "gaussian_noise": "noise", "vis_enc_attn": "vision_attention"}
INPUTS = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "image_sizes")


def cases():
    """Every recorded case with SAP: the shipped ones, and all others where the full set lies beside the checkout."""
    found = {
        p.name: p
        for root in (SMALL, FULL)
        for p in sorted((root / "cases").glob("*"))
        if not p.name.startswith("vanilla")
    }
    return [pytest.param(p, id=name) for name, p in found.items()]


def near(got, wanted):
    return bool(((got - wanted).abs() <= 1e-4 + 1e-4 * wanted.abs()).all())


@pytest.mark.parametrize("path", ["auto", "eager"])
@pytest.mark.parametrize("case", cases())
def test_reference(case, path, tmp_path):
    meta = json.loads((case / "meta.json").read_text())
    given, wanted = load_file(case / "inputs.safetensors"), load_file(case / "expected.safetensors")
    patch_checkpoint(
        case.parent.parent / "models" / meta["tiny_model"],
        tmp_path / "out",
        preset="reference",
        mode=MODES[meta["mode"]],
        layers=meta["affected_layers"],
        heads=(meta["head_percentile_min"], meta["head_percentile_max"]),
        blend=meta["align_lambda"],
    )
    model = load_patched(tmp_path / "out", dtype=torch.float32)
    assert model.sap_plan.dynamic and model.sap_plan.queries == "last" and model.sap_plan.band.rank_by == "score"
    model.sap_settings.force(path)
    model.generation_config.eos_token_id = None
    inputs = {k: given[k] for k in INPUTS if k in given}
    if "image_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
    prior = nullcontext()
    if "injected_prior" in given:
        prior = use_prior(model, [given["injected_prior"]], kind="prior")
    elif "vis_weight" in given:
        prior = use_prior(model, [given["vis_weight"]])
    with prior, torch.no_grad():
        prompt = model(**inputs).logits[0]
        with trace_heads() as trace:
            out = model.generate(
                **inputs, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
    assert near(prompt, wanted["logits_prefill_all"])
    assert near(prompt[-1], wanted["logits_prefill_last"])
    assert near(torch.stack(out.logits, 1)[0], wanted["logits_steps"])
    assert torch.equal(out.sequences[0, -8:], wanted["tokens"].long())
    layers = meta["affected_layers"]
    assert trace.layers == layers * 8
    first, last = meta["visual_token_range"]
    for i, (layer, heads, scores) in enumerate(zip(trace.layers, trace.heads, trace.priors, strict=True)):
        assert torch.equal(heads[0], wanted["head_mask"][i // len(layers), layer].bool())
        assert torch.allclose(scores[0, first:last], wanted["injected"][i // len(layers), layer], atol=1e-5)


def test_the_full_set_was_there():
    if not (FULL / "cases").is_dir():
        pytest.skip("only the small golden set is shipped; the full one does not lie beside this checkout")
    assert len(cases()) >= 9


PRIORS = load_file(SMALL / "priors" / "golden.safetensors")
PRIORS_META = json.loads((SMALL / "priors" / "meta.json").read_text())


@pytest.mark.parametrize("name", PRIORS_META["images"])
def test_complexity_priors(name):
    rows, columns = PRIORS_META["images"][name]["grid_th_tw"]
    gray = to_gray((PRIORS[f"{name}.image"].float() / 255).permute(2, 0, 1))
    found = grid_complexity(gray, rows, columns)
    assert torch.allclose(found.double(), PRIORS[f"{name}.paper_c_float64"], atol=1e-6)
    unit = (found - found.min()) / (found.max() - found.min() + 1e-8)
    assert torch.allclose(unit, PRIORS[f"{name}.grid_var"], atol=2e-6)
    assert torch.allclose(torch.softmax(unit, 0), PRIORS[f"{name}.prior_complexity"], atol=1e-6)


@pytest.mark.parametrize("kind", ["full", "windowed"])
def test_vision_attention_priors(kind):
    name = "grid12x18_win112"
    weights = PRIORS[f"{name}.{kind}.attn"].float()
    order = torch.argsort(PRIORS[f"{name}.window_index"])
    pooled = pool_blocks(weights, 4, "max")
    assert torch.allclose(pooled, PRIORS[f"{name}.{kind}.aggregate_vision_attns_max"], atol=1e-6)
    for pool, key in (("max", "max"), ("avg", "mean")):
        ordered = pool_blocks(weights, 4, pool)[:, :, order][:, :, :, order]
        assert torch.allclose(ordered, PRIORS[f"{name}.{kind}.to_decoder_order_{key}"], atol=1e-6)
    vector = pooled.mean(2).mean(1)[0, order]
    assert torch.allclose(vector, PRIORS[f"{name}.{kind}.model_vec"], atol=1e-6)
    assert torch.allclose(torch.softmax(vector, 0), PRIORS[f"{name}.{kind}.model_prior"], atol=1e-6)


@pytest.mark.parametrize("case", PRIORS_META["bbox"], ids=lambda c: c["object"])
def test_box_overlap(case):
    coco = PRIORS_META["coco"]
    category = next((c["id"] for c in coco["categories"] if c["name"] == case["object"]), None)
    boxes = [a["bbox"] for a in coco["annotations"] if a["category_id"] == category]
    found = box_overlap(boxes, case["original_wh"], case["resized_wh"], *case["grid_th_tw"])
    assert torch.allclose(found, PRIORS[case["key"]], atol=1e-6)
