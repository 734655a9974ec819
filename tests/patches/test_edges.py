"""Edge cases of patched models: half precision, right padding, partial training, foreign encoders, wrong plans."""

from __future__ import annotations

import copy
import sys
from types import ModuleType

import pytest
import tiny
import torch
from lostattn.patches import LostattnError, supplied, trace_heads, use_prior
from lostattn.patches.plan import Band, Pixels, Plan

NAME = "llava-llama"
REFERENCE = {"heads": {1: ()}, "band": Band(0.3, 0.6, "score"), "queries": "last", "scores": "prob_rescaled"}


@pytest.fixture
def make(plain):
    return lambda name=NAME, **changes: tiny.make_patched(plain(name), tiny.make_plan(name, **changes))


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rank_by", ["score", "mass"])
def test_a_dynamic_band_runs_in_half_precision(make, dtype, rank_by):
    model = make(preset="reference", **{**REFERENCE, "band": Band(0.3, 0.6, rank_by)})
    inputs = tiny.make_inputs(NAME)
    with trace_heads() as trace:
        got = logits(copy.deepcopy(model).to(dtype), inputs)
    assert torch.isfinite(got).all() and trace.heads[0].any()
    assert (got.float() - logits(model, inputs)).abs().mean() < 0.3


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("queries", ["all", "after_image", "last"])
@pytest.mark.parametrize("name", tiny.ONE_PER_FAMILY)
def test_right_padding_changes_nothing(make, name, queries, dynamic):
    changes = {"heads": {1: ()}, "band": Band(0.3, 0.6, "score")} if dynamic else {}
    model = make(name, queries=queries, **changes)
    inputs = tiny.make_inputs(name)
    length = inputs["input_ids"].shape[1]
    padded = {k: torch.nn.functional.pad(v, (0, 4)) if k in tiny.PER_TOKEN else v for k, v in inputs.items()}
    assert (logits(model, padded)[:, :length] - logits(model, inputs)).abs().max() < 2e-4


def test_gradients_of_key_projections_alone(make):
    found = {}
    for path in ("auto", "eager"):
        model = make()
        for key, weight in model.named_parameters():
            weight.requires_grad_(key.endswith("layers.0.self_attn.k_proj.weight") and "language" in key)
        model.sap_settings.force(path)
        inputs = tiny.make_inputs(NAME)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        found[path] = next(w.grad for w in model.parameters() if w.requires_grad)
    assert found["eager"].abs().max() > 0
    assert torch.allclose(found["auto"], found["eager"], atol=1e-5)


def test_priors_of_two_models_at_once(make):
    a, b, inputs = make(), make(seed=1), tiny.make_inputs(NAME)
    w = [torch.rand(16)]
    with use_prior(a, w):
        wanted = logits(a, inputs)
        with use_prior(b, [torch.rand(16)]):
            assert torch.equal(logits(a, inputs), wanted)
            assert not torch.equal(logits(b, inputs), wanted)
    with use_prior(a.model, iter(w)):
        assert torch.equal(logits(a, inputs), wanted)


def test_a_prior_nobody_can_use_is_an_error(make):
    model = make()
    with pytest.raises(LostattnError, match="0 images"), use_prior(model, [torch.rand(16)]):
        logits(model, tiny.make_inputs(NAME, images=0))
    rescaled = make(scores="prob_rescaled")
    with pytest.raises(LostattnError, match="not finite"), use_prior(rescaled, [torch.zeros(16)], kind="prior"):
        logits(rescaled, tiny.make_inputs(NAME))
    with (
        pytest.raises(LostattnError, match="beyond float32"),
        use_prior(model, [torch.full((16,), 1e300, dtype=torch.float64)]),
    ):
        pass


def test_use_prior_reaches_a_copy_of_the_code(make, monkeypatch):
    """A model loaded with remote code looks at its own copy of supplied.py."""
    model, inputs = make(), tiny.make_inputs(NAME)
    copied = ModuleType("elsewhere.supplied")
    copied._SUPPLIED = type(supplied._SUPPLIED)("copy", default=())
    monkeypatch.setitem(sys.modules, "elsewhere.supplied", copied)
    monkeypatch.setattr(type(model), "__module__", "elsewhere.family_llava")
    with use_prior(model, [torch.rand(16)]):
        assert len(copied._SUPPLIED.get()) == 1 and not supplied._SUPPLIED.get()
    assert not copied._SUPPLIED.get()
    assert torch.isfinite(logits(model, inputs)).all()


def test_an_image_encoded_by_another_model_is_refused(make, plain):
    inputs = tiny.make_inputs(NAME)
    pixels = inputs.pop("pixel_values")
    with torch.no_grad():
        image = plain(NAME).model.get_image_features(pixels)
        with pytest.raises(LostattnError, match="unpatched model"):
            make()(**inputs, mm_encoder_outputs={"image": image})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_heads": 8, "heads": {0: (7,)}}, "8 heads"),
        ({"num_layers": 9, "heads": {7: (0,)}}, "9 layers"),
        ({"num_kv_heads": 4}, "4 KV heads"),
        ({"family": "llava_next"}, "family 'llava_next'"),
        ({"options": {}}, "options"),
    ],
)
def test_a_plan_of_another_model_is_refused(plain, change, message):
    raw = {**tiny.make_plan(NAME).to_json(), **change}
    plan = Plan.from_json({**raw, "heads": {str(k): v for k, v in raw["heads"].items()}})
    config = type(tiny.make_patched(plain(NAME), tiny.make_plan(NAME)).config)
    values = {k: v for k, v in plain(NAME).config.to_dict().items() if k != "model_type"}
    from lostattn.patches.family import get_family

    with pytest.raises(LostattnError, match=message):
        get_family("llava").model_class(config(**values, sap=plan.to_json()))
    with pytest.raises(LostattnError, match="none 0"):
        Pixels((0.5, 0.5, 0.5), (0.5, 0.0, 0.5))


def test_attention_chosen_for_one_part_leaves_the_other(make):
    model = make()
    model.sap_settings.force("any_mask")
    model.set_attn_implementation({"vision_config": "eager"})
    assert model.sap_settings.path == "any_mask"
    model.set_attn_implementation({"text_config": "eager"})
    assert model.sap_settings.path == "eager"


def test_siglip_pooling_head_is_not_the_last_attention(plain):
    from lostattn.patches.family import last_attention
    from transformers import SiglipVisionConfig, SiglipVisionModel

    tower = SiglipVisionModel(SiglipVisionConfig(**{k: v for k, v in tiny.TOWER.items() if k != "initializer_range"}))
    assert last_attention(tower) is tower.encoder.layers[-1].self_attn


def test_no_text_keys_choose_no_heads(make, plain):
    model = make(heads={1: ()}, band=Band(0.0, 1.0, "score"), queries="all")
    inputs = tiny.make_inputs(NAME)
    only = {**inputs, "input_ids": torch.full((1, 16), tiny.IMAGE), "attention_mask": torch.ones(1, 16).long()}
    with trace_heads() as trace:
        got = logits(model, only)
    assert not trace.heads[0].any()
    assert torch.allclose(got, logits(plain(NAME), only), atol=1e-5)


def test_after_image_rows_of_a_chunk_inside_an_image(make):
    """A second chunk that starts inside the image, with ordinary visual rows: no mask of rows x keys is made."""
    model = make(queries="after_image", heads={0: (0, 3), 2: (2, 3)})
    exact = copy.deepcopy(model).double()
    exact.sap_settings.force("eager")
    inputs = tiny.make_inputs(NAME, 2)
    wanted = logits(exact, inputs)
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        cut = inputs["input_ids"].shape[1] - 7
        cache.crop(cut - cache.get_seq_length())
        again = model(input_ids=inputs["input_ids"][:, cut:], past_key_values=cache).logits
    assert (again - wanted[:, cut:]).abs().max() < 2e-4
