"""Edge cases of patched models: half precision, right padding, partial training, foreign encoders, wrong plans."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from lostattn.patches import LostattnError, trace_heads, use_prior
from lostattn.patches.mode import MODES
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
    assert (logits(model, padded)[:, :length] - logits(model, inputs)).abs().max() < tiny.rounding(name)


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
    exact = tiny.exact(model)
    exact.sap_settings.force("eager")
    inputs = tiny.make_inputs(NAME, 2)
    wanted = logits(exact, inputs)
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        cut = inputs["input_ids"].shape[1] - 7
        cache.crop(cut - cache.get_seq_length())
        again = model(input_ids=inputs["input_ids"][:, cut:], past_key_values=cache).logits
    assert (again - wanted[:, cut:]).abs().max() < 2e-4


@pytest.mark.parametrize("path", ["auto", "any_mask", "eager"])
@pytest.mark.parametrize("scores", ["raw", "prob", "prob_rescaled", "log"])
@pytest.mark.parametrize("queries", ["all", "after_image", "last"])
def test_gradients_of_every_rule_are_finite_and_those_of_the_eager_form(make, scores, queries, path):
    def gradients(path):
        model = make(scores=scores, queries=queries)
        model.sap_settings.force(path)
        inputs = tiny.make_inputs(NAME, 2)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        return {key: w.grad for key, w in model.named_parameters() if w.grad is not None}

    found, wanted = gradients(path), gradients("eager")
    assert found.keys() == wanted.keys() and any("language_model" in key for key in found)
    for key, grad in found.items():
        assert torch.isfinite(grad).all(), key
        assert torch.allclose(grad, wanted[key], atol=1e-4, rtol=1e-3), key


@pytest.mark.parametrize("top", [6e4, 7e4, 1e6, 1e30])
@pytest.mark.parametrize("path", ["any_mask", "eager", "closed"])
def test_scores_beyond_float16_stay_finite(make, path, top):
    model, inputs = make().to(torch.float16), tiny.make_inputs(NAME)
    model.sap_settings.force(path)
    exact = tiny.exact(model)
    exact.sap_settings.force("eager")
    for sign in (1, -1):
        prior = [torch.linspace(0, sign * top, 16)]
        with use_prior(model, prior, kind="scores"), use_prior(exact, prior, kind="scores"):
            got, wanted = logits(model, inputs).double(), logits(exact, {k: _double(v) for k, v in inputs.items()})
        assert torch.isfinite(got).all()
        assert (got - wanted).abs().mean() < 0.1


def _double(x):
    return x.double() if x.is_floating_point() else x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_the_default_dtype_changes_nothing(make, mode, dtype):
    model, inputs = make(mode=mode), tiny.make_inputs(NAME)
    with tiny.needed(model):
        wanted = logits(model, inputs)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            got = logits(model, inputs)
        finally:
            torch.set_default_dtype(before)
    assert got.dtype == wanted.dtype and torch.equal(got, wanted)


def test_a_band_by_mass_does_not_hang_on_rounding(plain):
    """Where the last row sees no visual key all heads have the same mass, so all lie in the band, alone and in a batch."""
    name = "gemma3-window"
    plan = tiny.make_plan(name, heads={0: (), 1: (), 2: ()}, band=Band(0.3, 0.6, "mass"))
    model = tiny.make_patched(plain(name), plan)
    prompts = [tiny.make_inputs(name, before=2 + 3 * i, after=20, seed=i) for i in (0, 1)]
    batch = logits(model, tiny.left_pad(prompts))
    for i, prompt in enumerate(prompts):
        with trace_heads() as trace:
            alone = logits(model, prompt)[0]
        assert bool(trace.heads[0].all()) and bool(trace.heads[2].all())  # the sliding layers
        assert (batch[i, -len(alone) :] - alone).abs().max() < 2e-4
