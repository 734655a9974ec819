"""Scores rule `fitted`: a weighted sum of features per KV head, against float64 oracles written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lostattn.patches import LostattnError, use_prior
from lostattn.patches.anymask import any_mask_attention
from lostattn.patches.attention_inputs import AttentionInputs, Layout, PriorScores, causal
from lostattn.patches.closed import closed_attention
from lostattn.patches.eager import eager_attention
from lostattn.patches.features import standardised
from lostattn.patches.mode import MODES
from lostattn.patches.plan import FEATURES, Plan
from lostattn.patches.selfcheck import self_check, small_plan
from lostattn.patches.summary import running_summary, visual_summary

FAMILY_MODELS = tiny.ONE_PER_FAMILY


def fitted(name: str, mode: str = "patch_complexity", features: tuple[str, ...] = FEATURES, **changes: Any) -> Plan:
    """The plan of `tiny.make_plan` with other weights in every KV head."""
    g = torch.Generator().manual_seed(5)
    plain = tiny.make_plan(name, mode)
    weights = {
        layer: tuple(tuple(torch.randn(len(features), generator=g).tolist()) for _ in plain.kv_heads_of(layer))
        for layer in plain.layers
    }
    given = {"scores": "fitted", "features": features, "weights": weights, "levels": levels_of(plain), **changes}
    return replace(plain, **given)


def levels_of(plan: Plan) -> dict[int, tuple[float, ...]]:
    """Another level in every patched head."""
    return {layer: tuple(0.7 * h - layer for h in heads) for layer, heads in plan.heads.items()}


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


# -- the forms of the attention

LAYOUTS = (
    "tttttvvvvvvvvvvvvvvvtttttttt",
    "vvvvvvvvvvttttt",
    "ttttttvvvvvvvvvvvv",
    "ttvvvvttvvvvttvvvvtt",
    "tvtvtvtvtvtvt",
    "vvvvvvvvvvvv",
    "tttttvtttt",
)


def make_job(
    layout: str, heads: list[int], rows: int, kv_heads: int, dtype: torch.dtype, span: float = 1.0
) -> AttentionInputs:
    """A job of 8 heads with levels whose KV heads score the visual keys otherwise."""
    torch.manual_seed(len(layout) + rows + kv_heads)
    keys, exact = len(layout), torch.float64 if dtype == torch.float64 else torch.float32
    visual = torch.tensor([c == "v" for c in layout]).expand(2, -1)
    prior = torch.zeros(2, keys, dtype=exact).masked_fill(~visual, torch.nan)
    by_group = (torch.randn(2, kv_heads, keys, dtype=exact) * span).masked_fill(~visual[:, None], 0)
    flags = torch.zeros(8, dtype=torch.bool)
    flags[heads] = True
    q = torch.randn(2, 8, rows, 16, dtype=dtype)
    k, v = (torch.randn(2, kv_heads, keys, 16, dtype=dtype) for _ in range(2))
    scores = PriorScores(prior, torch.linspace(-2, 2, 8, dtype=exact), None, by_group)
    return AttentionInputs(q, k, v, 0.25, scores, flags, layout=Layout.of(visual))


def by_loops(job: AttentionInputs) -> torch.Tensor:
    """The formula, one score after the other, float64 (B, H, Sq, Dv)."""
    q, k, v = job.q.double(), job.k.double(), job.v.double()
    size, past = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    assert job.scores.by_group is not None and job.scores.level is not None
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            g, patched = h // size, bool(job.heads[h])
            p = job.scores.by_group[b, g].double() + job.scores.level[h].double()
            if job.scores.exact is not None:
                given = job.scores.prior[b].double()
                p = torch.where(job.scores.exact[b], given, p)
            for t in range(q.shape[2]):
                s = (k[b, g, : past + t + 1] @ q[b, h, t]) * job.scale
                seen = ~job.scores.prior[b, : past + t + 1].isnan()
                s = torch.where(seen & patched, p[: past + t + 1], s)
                out[b, h, t] = torch.softmax(s, 0) @ v[b, g, : past + t + 1]
    return out


@settings(max_examples=60, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    heads=st.sets(st.integers(0, 7), min_size=1),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    part=st.floats(0, 1),
    double=st.booleans(),
    span=st.sampled_from([1.0, 100.0, 1000.0]),
)
def test_every_form_is_the_formula(
    layout: str, heads: set[int], kv_heads: int, part: float, double: bool, span: float
) -> None:
    """Rows of a whole prompt, of a chunk that starts inside an image, and of one decode step."""
    rows = max(1, round(part * len(layout)))
    job = make_job(layout, sorted(heads), rows, kv_heads, torch.float64 if double else torch.float32, span)
    wanted = by_loops(job)
    for form in (closed_attention, any_mask_attention, lambda j: eager_attention(j)[0]):
        allowed = 1e-11 if double else 2e-5 if span == 1.0 else 4e-4  # scores of 1000 keep three digits less
        assert (form(job).double() - wanted).abs().max() < allowed
    part_known = replace(job, summary=visual_summary(job.scores.of_groups(), job.v, job.layout)) if rows == 1 else job
    assert (closed_attention(part_known).double() - wanted).abs().max() < 4e-4


@pytest.mark.parametrize("heads", [list(range(8)), [0, 1, 5]])
def test_padding_exact_scores_and_half_precision(heads: list[int]) -> None:
    job = make_job(LAYOUTS[0], heads, 28, 2, torch.float32)
    exact = job.scores.visual & (torch.arange(28) < 9)
    g = job.scores.by_group
    assert g is not None
    given_p = torch.where(exact, torch.randn(2, 28), job.scores.prior)
    scores = replace(job.scores, exact=exact, prior=given_p, by_group=g.masked_fill(exact[:, None], 0))
    part = replace(job, scores=scores)
    assert (any_mask_attention(part).double() - by_loops(part)).abs().max() < 2e-5
    half = replace(job, q=job.q.bfloat16(), k=job.k.bfloat16(), v=job.v.bfloat16())
    for form in (closed_attention, any_mask_attention):
        assert (form(half).double() - by_loops(half)).abs().max() < 4e-2
    padding = torch.tensor([3, 0])[:, None] <= torch.arange(28)
    masked = replace(job, mask=causal(28, 28, "cpu") & padding[:, None, None, :], layout=None)
    got, wanted = any_mask_attention(masked), eager_attention(masked)[0]
    assert (got - wanted)[padding[:, None, :, None].expand_as(got)].abs().max() < 2e-5


def test_gradients_reach_weights_and_levels() -> None:
    """Of the any-mask form, against those of the eager form."""
    job = make_job(LAYOUTS[0], [0, 1, 2, 3, 6], 28, 2, torch.float64)
    features = torch.randn(2, 28, 3, dtype=torch.float64) * job.scores.visual[..., None]
    found = []
    for form in (any_mask_attention, lambda j: eager_attention(j)[0]):
        weights = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3).requires_grad_()
        level = torch.linspace(-2, 2, 8, dtype=torch.float64).requires_grad_()
        scores = replace(job.scores, level=level, by_group=weights @ features.transpose(1, 2))
        out = (form(replace(job, scores=scores)) * torch.linspace(-1, 1, 16, dtype=torch.float64)).sum()
        found.append(torch.autograd.grad(out, [weights, level]))
    for got, wanted in zip(*found, strict=True):
        assert torch.allclose(got, wanted, atol=1e-10) and wanted.abs().max() > 1e-3
    assert found[0][1][4] == 0, "a head that is not patched"


def test_running_summaries_per_kv_head_are_those_of_each_head_alone() -> None:
    torch.manual_seed(0)
    for span in (1.0, 100.0, 1000.0):
        scores, v = torch.randn(2, 3, 9) * span, torch.randn(2, 3, 9, 4)
        mean, mass = running_summary(scores, v)
        for g in range(3):
            one_mean, one_mass = running_summary(scores[:, g], v[:, g : g + 1])
            assert torch.allclose(mean[:, g], one_mean[:, 0], atol=1e-5) and torch.allclose(mass[:, g], one_mass)


# -- features


@given(
    n=st.integers(1, 60),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    shift=st.sampled_from([0.0, 3.0]),
)
def test_standardised(n: int, seed: int, scale: float, shift: float) -> None:
    w = torch.randn(n, generator=torch.Generator().manual_seed(seed)) * scale + shift * scale
    z = standardised(w).double()
    exact = w.double()
    spread = exact.std(correction=0)
    wanted = (exact - exact.mean()) / spread if spread > 1e-4 * exact.abs().max() else torch.zeros(n)
    assert torch.allclose(z, wanted.double(), atol=1e-3)
    assert not standardised(torch.full((n,), 0.1)).any(), "rounding is no complexity"


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_features_in_the_model(name: str, plain: Callable[[str], Any]) -> None:
    """Every family: the mode's numbers standardised, places within the image, the number of tokens."""
    inputs = tiny.make_inputs(name, 1)
    raw = tiny.make_patched(plain(name), tiny.make_plan(name))
    model = tiny.make_patched(plain(name), fitted(name))
    a, b = (encode(m, inputs)["sap_prior"] for m in (raw, model))
    for w, found in zip(a, b, strict=True):
        assert found.shape == (len(w), 1 + len(FEATURES)) and not found[:, 0].any()
        of = dict(zip(FEATURES, found[:, 1:].unbind(1), strict=True))
        assert torch.allclose(of["prior"], standardised(w), atol=1e-5)
        assert torch.allclose(of["fewness"], torch.full_like(w, -math.log(len(w))))
        for axis in ("row", "column"):
            x = of[axis]
            assert x.abs().max() <= 1 and x.unique().numel() > 1 and abs(x.mean()) < 0.3
            assert torch.allclose(of[f"{axis}_squared"], (3 * x**2 - 1) / 2, atol=1e-6)


def test_places_of_a_grid_are_its_cells(plain: Callable[[str], Any]) -> None:
    """Qwen2.5-VL: 2 x 3 tokens, row by row."""
    model = tiny.make_patched(plain("qwen2_5_vl"), fitted("qwen2_5_vl", features=("row", "column")))
    inputs = {"pixel_values": torch.randn(24, 1176), "image_grid_thw": torch.tensor([[1, 4, 6]])}
    found = encode(model, inputs)["sap_prior"][0]
    rows, columns = [-0.5] * 3 + [0.5] * 3, [-2 / 3, 0, 2 / 3] * 2
    assert torch.allclose(found[:, 1:], torch.tensor([rows, columns]).T, atol=1e-6)


def encode(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    import inspect

    wanted = inspect.signature(model.model.get_image_features).parameters
    with torch.no_grad():
        return model.model.get_image_features(**{k: v for k, v in inputs.items() if k in wanted})


# -- whole models


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_forms_agree_inside_the_model(name: str, images: int, plain: Callable[[str], Any]) -> None:
    """Closed and any-mask form in float32 against the eager form in float64, prefill and cached decoding."""
    check_forms(tiny.make_patched(plain(name), fitted(name)), name, images)


@pytest.mark.parametrize("mode", sorted(m for m, mode in MODES.items() if not mode.scores))
def test_forms_agree_in_every_mode(mode: str, plain: Callable[[str], Any]) -> None:
    check_forms(tiny.make_patched(plain("qwen2_5_vl"), fitted("qwen2_5_vl", mode)), "qwen2_5_vl", 2)


@pytest.mark.parametrize("changes", [{"queries": "after_image"}, {"queries": "last"}, {"blend": 0.4}], ids=str)
def test_rows_and_blend(changes: dict[str, Any], plain: Callable[[str], Any]) -> None:
    model = tiny.make_patched(plain("llava-llama"), fitted("llava-llama", **changes))
    exact = tiny.exact(model)
    exact.sap_settings.force("eager")
    inputs = tiny.make_inputs("llava-llama", 2)
    wanted = logits(exact, inputs)
    assert (logits(model, inputs) - wanted).abs().max() < 2e-4
    assert (wanted - logits(plain("llava-llama"), inputs))[0, -1].abs().max() > 1e-2


def check_forms(model: Any, name: str, images: int) -> None:
    exact = tiny.exact(model)
    exact.sap_settings.force("eager")
    inputs = tiny.make_inputs(name, images)
    with tiny.needed(exact, images):
        wanted = logits(exact, inputs)
    first = inputs["input_ids"].shape[1] - 4
    for path in ("closed", "any_mask"):
        model.sap_settings.force(path)
        with tiny.needed(model, images):
            assert (logits(model, inputs) - wanted).abs().max() < tiny.rounding(name), path
            steps = tiny.by_steps(model, inputs, first)
        assert (steps - wanted[:, -4:]).abs().max() < tiny.rounding(name), path


@pytest.mark.parametrize("name", FAMILY_MODELS)
def test_uniform_weights_are_the_rule_log(name: str, plain: Callable[[str], Any]) -> None:
    """Weight 1 on the number of tokens alone is a uniform prior of scores rule `log`, where every prior is an image's own."""
    plain_plan = tiny.make_plan(name, "uniform")
    ones = {layer: ((1.0,),) * len(plain_plan.kv_heads_of(layer)) for layer in plain_plan.layers}
    plan = fitted(name, "uniform", ("fewness",), weights=ones)
    other = replace(plain_plan, scores="log", levels=levels_of(plain_plan))
    inputs = tiny.make_inputs(name, 2)
    a, b = (logits(tiny.make_patched(plain(name), p), inputs) for p in (plan, other))
    assert torch.allclose(a, b, atol=1e-4)


def test_beams_and_left_padding(plain: Callable[[str], Any]) -> None:
    name = "qwen2_5_vl"
    model = tiny.make_patched(plain(name), fitted(name))
    prompts = [tiny.make_inputs(name, seed=i, before=3 + 4 * i) for i in (0, 1)]
    batch = logits(model, tiny.left_pad(prompts))
    for i, prompt in enumerate(prompts):
        alone = logits(model, prompt)[0]
        assert (batch[i, -len(alone) :] - alone).abs().max() < 2e-4
    beams = model.generate(**prompts[0], max_new_tokens=5, num_beams=3, do_sample=False)
    model.sap_settings.force("eager")
    assert torch.equal(beams, model.generate(**prompts[0], max_new_tokens=5, num_beams=3, do_sample=False))


def test_an_image_after_text_on_the_same_cache(plain: Callable[[str], Any]) -> None:
    """Two calls with an image each, on one cache, against one call with both."""
    name = "llava-llama"
    model = tiny.make_patched(plain(name), fitted(name))
    inputs = tiny.make_inputs(name, 2)
    cut = int((inputs["input_ids"][0] == tiny.IMAGE).nonzero()[tiny.image_tokens(name) - 1]) + 2
    halves = [slice(None, cut), slice(cut, None)]
    with torch.no_grad():
        cache = None
        for i, half in enumerate(halves):
            part = {"input_ids": inputs["input_ids"][:, half], "pixel_values": inputs["pixel_values"][i : i + 1]}
            out = model(**part, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
    assert (out.logits - logits(model, inputs)[:, halves[1]]).abs().max() < 2e-4
    state = cache.sap_state
    assert state.features.shape == (*state.prior.shape, len(FEATURES))
    cache.crop(cut - cache.get_seq_length())  # newer transformers take the number of tokens to remove alone
    assert cache.sap_state.features.shape[1] == cut


def test_use_prior(plain: Callable[[str], Any]) -> None:
    """`weights` are standardised, `prior` is the feature itself, `scores` are injected without weights and levels."""
    name = "llava-llama"
    model = tiny.make_patched(plain(name), fitted(name))
    inputs, n = tiny.make_inputs(name), tiny.image_tokens(name)
    w = torch.randn(n) * 5 + 3
    with use_prior(model, [w]):
        by_weights = logits(model, inputs)
    with use_prior(model, [standardised(w)], kind="prior"):
        assert torch.equal(logits(model, inputs), by_weights)
    assert not torch.allclose(by_weights, logits(model, inputs), atol=1e-3)
    raw = tiny.make_patched(plain(name), tiny.make_plan(name))
    with use_prior(model, [w], kind="scores"), use_prior(raw, [w], kind="scores"):
        assert torch.allclose(logits(model, inputs), logits(raw, inputs), atol=2e-4)


def test_embeddings_without_places_are_refused(plain: Callable[[str], Any]) -> None:
    name = "qwen2_5_vl"
    model = tiny.make_patched(plain(name), fitted(name, "uniform"))
    inputs = tiny.make_inputs(name)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    where = (inputs["input_ids"] == tiny.IMAGE).int()
    with pytest.raises(LostattnError, match="needs to know where visual tokens lie"):
        model(inputs_embeds=embeds, mm_token_type_ids=where)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_next-llama", "internvl"])
def test_the_self_check_covers_the_rule(name: str, plain: Callable[[str], Any]) -> None:
    name = next(n for n in tiny.CONFIGS if n.startswith(name))
    plan = fitted(name)
    config = tiny.make_patched(plain(name), plan).config
    assert small_plan(plan, config.get_text_config()).scores == "fitted" and self_check(config, plan) == ""
