"""Patched models of every family: identity, oracle, causality, paths, refusals."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from lostattn.patches import LostattnError, use_prior
from lostattn.patches.family import FAMILIES
from lostattn.patches.mode import MODES

FAMILY_MODELS = tiny.ONE_PER_FAMILY


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def test_every_family_has_a_tiny_model():
    assert {tiny.family_of(n) for n in tiny.CONFIGS} == set(FAMILIES) == {tiny.family_of(n) for n in FAMILY_MODELS}


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_a_plan_that_changes_nothing_is_bit_identical(name, plain):
    inputs = tiny.make_inputs(name)
    wanted = logits(plain(name), inputs)
    for plan in (tiny.make_plan(name, heads={}), tiny.make_plan(name, blend=0.0)):
        assert torch.equal(logits(tiny.make_patched(plain(name), plan), inputs), wanted)
    patched = tiny.make_patched(plain(name), tiny.make_plan(name))
    assert not torch.allclose(logits(patched, inputs), wanted, atol=1e-2)
    text = tiny.make_inputs(name, images=0)
    assert torch.equal(logits(patched, text), logits(plain(name), text))


@pytest.mark.parametrize("name", FAMILY_MODELS)
def test_a_plan_that_changes_nothing_is_bit_identical_in_eager_too(name, plain):
    inputs = tiny.make_inputs(name)
    base = copy.deepcopy(plain(name))
    base.set_attn_implementation("eager")
    same = tiny.make_patched(plain(name), tiny.make_plan(name, blend=0.0))
    same.set_attn_implementation("eager")
    assert torch.equal(logits(same, inputs), logits(base, inputs))


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_forms_agree_inside_the_model(name, mode, images, plain):
    """Closed and any-mask form in float32 against the eager form in float64, prefill and cached decoding."""
    model = tiny.make_patched(plain(name), tiny.make_plan(name, mode))
    exact = tiny.exact(model)
    exact.sap_settings.force("eager")
    inputs = tiny.make_inputs(name, images)
    with tiny.needed(exact, images):
        wanted = logits(exact, inputs)
    for path in ("closed", "any_mask", "auto"):
        model.sap_settings.force(path)
        model.sap_settings.counts.clear()
        with tiny.needed(model, images):
            assert (logits(model, inputs) - wanted).abs().max() < tiny.rounding(name), path
            taken = "closed" if path == "auto" else path
            assert set(model.sap_settings.counts) == {taken}
            steps = tiny.by_steps(model, inputs, first=inputs["input_ids"].shape[1] - 4)
        assert (steps - wanted[:, -4:]).abs().max() < tiny.rounding(name), path


@pytest.mark.parametrize("scores", ["raw", "prob", "prob_rescaled", "log"])
@pytest.mark.parametrize("queries", ["all", "after_image", "last"])
def test_every_rule_and_row_choice(scores, queries, plain):
    name = "llava-llama"
    levels = {0: (0.5, -1.0, 2.0, 0.0), 1: (1.0, -2.0), 2: (0.3, 0.1)} if scores == "log" else {}
    plan = tiny.make_plan(name, scores=scores, queries=queries, levels=levels, temperature=0.7)
    model = tiny.make_patched(plain(name), plan)
    exact = tiny.exact(model)
    exact.sap_settings.force("eager")
    inputs = tiny.make_inputs(name, 2)
    wanted, base = logits(exact, inputs), logits(plain(name), inputs)
    assert (logits(model, inputs) - wanted).abs().max() < 2e-4
    assert set(model.sap_settings.counts) == {"any_mask" if queries == "last" else "closed"}
    assert (wanted - base)[0, -1].abs().max() > 1e-2
    if queries == "last":
        assert torch.allclose(wanted[:, :-1].float(), base[:, :-1], atol=2e-4)


@pytest.mark.parametrize("name", FAMILY_MODELS)
def test_causality(name, plain):
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs = tiny.make_inputs(name)
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, -2] += 1
    for path in ("closed", "any_mask", "eager"):
        model.sap_settings.force(path)
        a, b = logits(model, inputs), logits(model, changed)
        assert torch.equal(a[:, :-2], b[:, :-2])
        assert not torch.equal(a[:, -2:], b[:, -2:])


@pytest.mark.parametrize("rank_by", ["score", "mass"])
@pytest.mark.parametrize("queries", ["all", "last"])
def test_dynamic_band_is_per_sample_and_blind_to_padding(rank_by, queries, plain):
    from lostattn.patches.plan import Band

    name = "llava_onevision"
    plan = tiny.make_plan(
        name,
        heads={0: (), 1: (), 2: ()},
        band=Band(0.3, 0.6, rank_by),
        queries=queries,
        preset="reference",
        scores="prob_rescaled",
        blend=0.7,
    )
    model = tiny.make_patched(plain(name), plan)
    prompts = [tiny.make_inputs(name, seed=i, before=3 + 4 * i) for i in (0, 1)]
    batch = logits(model, tiny.left_pad(prompts))
    for i, prompt in enumerate(prompts):
        alone = logits(model, prompt)[0]
        assert (batch[i, -len(alone) :] - alone).abs().max() < 2e-4
        assert not torch.allclose(alone, logits(plain(name), prompt)[0], atol=1e-2)


def test_dynamic_band_with_the_image_first(plain):
    """The authors' OneVision code divides by zero here and silently patches nothing."""
    from lostattn.patches.plan import Band

    name = "llava_onevision"
    plan = tiny.make_plan(
        name, heads={1: ()}, band=Band(0.3, 0.6, "score"), queries="last", preset="reference", scores="prob"
    )
    inputs = tiny.make_inputs(name, before=0)
    assert not torch.allclose(
        logits(tiny.make_patched(plain(name), plan), inputs)[0, -1], logits(plain(name), inputs)[0, -1]
    )


def test_half_precision_stays_near(plain):
    for name in FAMILY_MODELS:
        model = tiny.make_patched(plain(name), tiny.make_plan(name))
        inputs = tiny.make_inputs(name)
        wanted = logits(model, inputs)
        half = copy.deepcopy(model).bfloat16()
        got = {}
        for path in ("eager", "closed", "any_mask"):
            half.sap_settings.force(path)
            got[path] = (logits(half, inputs).float() - wanted).abs().mean()
        assert max(got.values()) < 3 * got["eager"] + 1e-3, got


def test_gradients_flow(plain):
    name = "qwen2_5_vl"
    inputs = tiny.make_inputs(name)
    found = {}
    for path in ("auto", "eager"):
        model = tiny.make_patched(plain(name), tiny.make_plan(name)).train()
        model.sap_settings.force(path)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        found[path] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert set(model.sap_settings.counts) == {"any_mask" if path == "auto" else "eager"}
    for n, g in found["auto"].items():
        assert torch.allclose(g, found["eager"][n], atol=1e-4), n
    assert any("v_proj" in n and g.abs().max() > 0 for n, g in found["auto"].items())


def test_forced_closed_form_refuses_what_it_cannot_do(plain):
    name = "llava-llama"
    model = tiny.make_patched(plain(name), tiny.make_plan(name, blend=0.5))
    model.sap_settings.force("closed")
    with pytest.raises(LostattnError, match="blend"):
        logits(model, tiny.make_inputs(name))
    with pytest.raises(LostattnError, match="choose one of auto, closed, any_mask, eager"):
        model.sap_settings.force("fast")


def test_changing_the_decoder_attention_never_drops_the_patch(plain):
    name = "llava-llama"
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs = tiny.make_inputs(name)
    wanted = logits(model, inputs)
    model.set_attn_implementation("eager")
    assert (logits(model, inputs) - wanted).abs().max() < 2e-4
    assert model.sap_settings.counts["eager"] == 3
    with pytest.raises(LostattnError, match="sdpa"):
        model.set_attn_implementation("flash_attention_2")
    model.model.language_model.set_attn_implementation("sdpa")
    with pytest.raises(LostattnError, match="behind the patch"):
        logits(model, inputs)


def test_supplied_priors(plain):
    name = "llava-llama"
    n = tiny.image_tokens(name)
    model = tiny.make_patched(plain(name), tiny.make_plan(name, scores="prob_rescaled"))
    inputs = tiny.make_inputs(name, 2)
    own = logits(model, inputs)
    w = [torch.rand(n), torch.rand(n)]
    with use_prior(model, w):
        by_weights = logits(model, inputs)
    with use_prior(model, [torch.softmax(x, 0) for x in w], kind="prior"):
        assert torch.allclose(logits(model, inputs), by_weights, atol=1e-5)
    with use_prior(model, w, kind="scores"):
        by_scores = logits(model, inputs)
    raw = tiny.make_patched(plain(name), tiny.make_plan(name))
    with use_prior(raw, w):
        assert torch.allclose(logits(raw, inputs), by_scores, atol=1e-5)
    assert not torch.allclose(own, by_weights, atol=1e-4)
    assert not torch.allclose(by_scores, by_weights, atol=1e-4)
    assert torch.equal(logits(model, inputs), own)


def test_exact_scores_take_no_level(plain):
    name = "llava-llama"
    levels = {0: (0.5, -1.0, 2.0, 0.0), 1: (1.0, -2.0), 2: (0.3, 0.1)}
    levelled = tiny.make_patched(plain(name), tiny.make_plan(name, scores="log", levels=levels))
    raw = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs, w = tiny.make_inputs(name), [torch.rand(tiny.image_tokens(name))]
    with use_prior(levelled, w, kind="scores"):
        got = logits(levelled, inputs)
    with use_prior(raw, w, kind="scores"):
        assert torch.allclose(got, logits(raw, inputs), atol=1e-4)


@pytest.mark.parametrize(
    "tensors, kind, message",
    [
        ([torch.rand(16)], "logits", "choose one of weights, prior, scores"),
        (torch.rand(16), "weights", "a list"),
        ([torch.rand(4, 4)], "weights", "1-D float"),
        ([torch.ones(16, dtype=torch.int64)], "weights", "1-D float"),
        ([torch.full((16,), torch.nan)], "weights", "NaN"),
        ([torch.rand(15)], "weights", "16 visual tokens"),
        ([torch.rand(16)] * 2, "weights", "1 images"),
        ([], "weights", "1 images"),
    ],
)
def test_wrong_supplied_priors_are_refused(tensors, kind, message, plain):
    name = "llava-llama"
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    with pytest.raises(LostattnError, match=message), use_prior(model, tensors, kind):
        logits(model, tiny.make_inputs(name))
    with pytest.raises(LostattnError, match="patched model"), use_prior(plain(name), [], "weights"):
        pass
    assert torch.isfinite(logits(model, tiny.make_inputs(name))).all()
