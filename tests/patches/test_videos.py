"""Videos in patched models: one item of one or several runs of visual tokens, alone and beside images."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from lostattn.patches import LostattnError, use_prior
from lostattn.patches.family import get_family
from lostattn.patches.mode import MODES, get_mode
from lostattn.patches.pixels import normalised_to_gray, patch_complexity
from lostattn.patches.scores import shape_prior

ENCODER = ("video_grid_thw",)
PARTS = [("video",), ("video", "image", "video")]


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def encode(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    kwargs = {k: inputs[k] for k in ENCODER if k in inputs}
    with torch.no_grad():
        return model.model.get_video_features(inputs["pixel_values_videos"], **kwargs)


def prompts(name: str) -> list[tuple[str, ...]]:
    return PARTS if tiny.takes_both(name) else [("video",), ("video", "video")]


# Linear attention and the routers of these compute in float32 whatever the model's type.
ROUNDING = {"qwen3_5": 1e-4, "qwen3_5_moe": 1e-4, "glm4v_moe": 1e-4, "glm46v-moe": 1e-4}


@pytest.mark.parametrize("name", tiny.VIDEO_MODELS)
def test_forms_agree_inside_the_model(name: str, plain: Any) -> None:
    """Closed and any-mask form in float64 against the eager form, prefill and cached decoding, text between spans included.

    Steps are held against steps: after a video, Qwen2.5-VL itself counts positions otherwise in one pass than on a cache.
    """
    model = tiny.exact(tiny.make_patched(plain(name), tiny.make_plan(name)))
    near = ROUNDING.get(name, 1e-9)
    inputs = tiny.make_video_inputs(name, prompts(name)[-1])
    rows = inputs["input_ids"].shape[1] - 2
    model.sap_settings.force("eager")
    wanted, steps = logits(model, inputs), tiny.by_steps(model, inputs, rows)
    assert (wanted - logits(plain(name), inputs)).abs().max() > 1e-2
    for path in ("closed", "any_mask"):
        model.sap_settings.force(path)
        model.sap_settings.counts.clear()
        assert (logits(model, inputs) - wanted).abs().max() < near, path
        assert set(model.sap_settings.counts) == {path}
        assert (tiny.by_steps(model, inputs, rows) - steps).abs().max() < near, path
    if name == "qwen3_vl":
        assert (steps - wanted[:, -2:]).abs().max() < near


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["qwen3_vl", "llava_onevision"])
def test_every_mode(name: str, mode: str, plain: Any) -> None:
    plan = tiny.make_plan(name, mode)
    model = tiny.make_patched(plain(name), plan)
    inputs = tiny.make_video_inputs(name, ("video", "video"))
    if get_mode(mode).needs:
        with pytest.raises(LostattnError, match="boxes in images alone"):
            logits(model, inputs)
        return
    wanted = logits(model, inputs)
    model.sap_settings.force("eager")
    assert (logits(model, inputs) - wanted).abs().max() < tiny.rounding(name)
    found = encode(model, inputs)["sap_prior"]
    assert [len(p) for p in found] == [sum(runs) for runs in tiny.TINY[tiny.family_of(name)].videos.runs]


@pytest.mark.parametrize("name", tiny.VIDEO_FAMILIES)
def test_a_plan_that_changes_nothing_is_bit_identical(name: str, plain: Any) -> None:
    inputs = tiny.make_video_inputs(name, prompts(name)[-1])
    wanted = logits(plain(name), inputs)
    for plan in (tiny.make_plan(name, heads={}), tiny.make_plan(name, blend=0.0)):
        assert torch.equal(logits(tiny.make_patched(plain(name), plan), inputs), wanted)


@pytest.mark.parametrize("name", tiny.VIDEO_FAMILIES)
def test_complexity_moves_exactly_where_features_move(name: str, plain: Any) -> None:
    """Perturb one patch of one frame: the tokens whose features move are those whose prior moves."""
    model, inputs = tiny.still(plain, name), tiny.make_video_inputs(name, ("video", "video"))
    g = torch.Generator().manual_seed(0)
    before, moved = encode(model, inputs), set()
    for _ in range(24):
        pixels = inputs["pixel_values_videos"].clone()
        if pixels.dim() == 2:  # rows of patches of two frames each
            row, frame = (int(torch.randint(n, (1,), generator=g)) for n in (len(pixels), 2))
            part = pixels.view(len(pixels), 3, 2, -1)[row, :, frame]
        else:
            video, frame, y, x = (int(torch.randint(n, (1,), generator=g)) for n in (2, 3, 4, 4))
            part = pixels[video, frame, :, 14 * y : 14 * y + 14, 14 * x : 14 * x + 14]
        part += torch.randn(part.shape, generator=g)
        after = encode(model, {**inputs, "pixel_values_videos": pixels})
        old, new = (torch.cat(list(x.pooler_output)) for x in (before, after))
        p_old, p_new = (torch.cat(x["sap_prior"]) for x in (before, after))
        features = (old - new).abs().amax(-1) > 1e-6
        assert torch.equal(features, (p_old - p_new).abs() > 0)
        assert int(features.sum()) == 1
        moved.add(int(features.nonzero()[0]))
    assert len(moved) > 6


@pytest.mark.parametrize("name", [n for n in tiny.VIDEO_FAMILIES if "video_grid_thw" in tiny.make_video_inputs(n)])
def test_complexity_of_a_token_is_the_mean_over_its_frames(name: str, plain: Any) -> None:
    model, inputs = tiny.still(plain, name), tiny.make_video_inputs(name)
    found = encode(model, inputs)["sap_prior"][0]
    side = model.config.vision_config.patch_size
    rows = inputs["pixel_values_videos"].view(12, 2, 2, 3, 2, side, side)  # token, row, column, colour, frame
    for token, n in ((0, 0), (7, 7), (11, 11)):
        frames = rows[token].permute(3, 2, 0, 4, 1, 5).reshape(2, 3, 2 * side, 2 * side)
        gray = normalised_to_gray(frames, tiny.PIXELS)
        assert torch.allclose(found[n], patch_complexity(gray).mean(), atol=1e-6)


@pytest.mark.parametrize("name", tiny.VIDEO_FAMILIES)
def test_noise_depends_on_the_pixels_of_every_frame(name: str, plain: Any) -> None:
    model, inputs = tiny.still(plain, name, "noise"), tiny.make_video_inputs(name, ("video", "video"))
    first, again = (encode(model, inputs)["sap_prior"] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    pixels = inputs["pixel_values_videos"].clone()
    pixels.view(2, -1)[0, -1] += 3 if pixels.dim() == 5 else 0
    pixels[-1].view(-1)[-1] -= 3
    other = encode(model, {**inputs, "pixel_values_videos": pixels})["sap_prior"]
    assert not torch.equal(first[1], other[1])
    assert torch.equal(first[0], other[0]) == (pixels.dim() == 2)


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("name", tiny.VIDEO_FAMILIES)
def test_vision_attention_equals_the_tower_recomputed(name: str, pool: str, plain: Any) -> None:
    if pool == "max" and name == "llava_onevision":
        pytest.skip("one patch is one block there")
    model = tiny.make_patched(plain(name), tiny.make_plan(name, "vision_attention", options={"pool": pool}))
    inputs = tiny.make_video_inputs(name, ("video", "video"))
    found = encode(model, inputs)["sap_prior"]
    weights = tiny.tower_weights(lambda: encode(model, inputs))
    wanted = tiny.TINY[tiny.family_of(name)].videos.received(model.config, inputs, weights, pool)
    for p, w in zip(found, wanted, strict=True):
        assert torch.allclose(p, w, atol=1e-6)


@pytest.mark.parametrize("rule", ["prob", "log"])
def test_a_scores_rule_normalises_over_the_whole_video(rule: str, plain: Any) -> None:
    name = "qwen3_vl"
    inputs = tiny.make_video_inputs(name, ("video", "video"))
    raw = encode(tiny.make_patched(plain(name), tiny.make_plan(name)), inputs)["sap_prior"]
    plan = tiny.make_plan(name, scores=rule)
    found = encode(tiny.make_patched(plain(name), plan), inputs)["sap_prior"]
    for p, w in zip(found, raw, strict=True):
        assert torch.allclose(p, shape_prior(w, plan))
    assert abs(float((found[0].exp() if rule == "log" else found[0]).sum()) - 1) < 1e-5


@pytest.mark.parametrize("name", ["qwen3_vl", "llava_onevision"])
def test_generation(name: str, plain: Any) -> None:
    """Greedy, beams and left-padded batches equal passes without a cache and prompts alone."""
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs = tiny.make_video_inputs(name, ("image", "video"))
    length = inputs["input_ids"].shape[1]
    found = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    again = model.generate(**inputs, max_new_tokens=4, do_sample=False, use_cache=False)
    assert torch.equal(found, again)
    beams = model.generate(**inputs, max_new_tokens=4, do_sample=False, num_beams=3, num_return_sequences=2)
    slow = model.generate(
        **inputs, max_new_tokens=4, do_sample=False, num_beams=3, num_return_sequences=2, use_cache=False
    )
    assert torch.equal(beams, slow)
    other = tiny.make_video_inputs(name, ("image", "video"), before=7, seed=1)
    batch = logits(model, tiny.left_pad([inputs, other]))
    for i, prompt in enumerate((inputs, other)):
        alone = logits(model, prompt)[0]
        assert (batch[i, -len(alone) :] - alone).abs().max() < tiny.rounding(name)
    assert found.shape[1] == length + 4


@pytest.mark.parametrize("border", range(1, 17, 3))
@pytest.mark.parametrize("name", ["qwen3_vl", "llava_onevision"])
def test_a_chunk_may_end_anywhere(name: str, border: int, plain: Any) -> None:
    """A prompt read in two calls, by its embeddings: inside a run, between runs, at their ends."""
    model = tiny.exact(tiny.make_patched(plain(name), tiny.make_plan(name)))
    inputs = tiny.make_video_inputs(name, before=2)
    out = encode(model, inputs)
    ids = inputs["input_ids"]
    visual, embeds = ids == tiny.VIDEO, model.get_input_embeddings()(ids)
    embeds = embeds.masked_scatter(visual[..., None], torch.cat(list(out.pooler_output)).to(embeds)).detach()
    prior, end = torch.cat(out["sap_prior"]), 2 + border
    places = torch.arange(ids.shape[1])[None]
    cache, parts = None, []
    for rows in (slice(0, end), slice(end, None)):
        mask, seen = visual[:, rows], int(visual[:, : rows.start].sum())
        given = [prior[seen : seen + int(mask.sum())]]
        with use_prior(model, given, kind="scores", mask=mask), torch.no_grad():
            found = model(
                inputs_embeds=embeds[:, rows], past_key_values=cache, use_cache=True, position_ids=places[:, rows]
            )
        cache, parts = found.past_key_values, [*parts, found.logits]
    with use_prior(model, [prior], kind="scores", mask=visual), torch.no_grad():
        wanted = model(inputs_embeds=embeds, position_ids=places).logits
    assert (torch.cat(parts, 1) - wanted).abs().max() < 1e-9


def test_supplied_priors_of_images_and_videos(plain: Any) -> None:
    name = "qwen2_5_vl"
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    inputs = tiny.make_video_inputs(name, ("image", "video"))
    image, video = torch.rand(12), torch.rand(12)
    with use_prior(model, [image], videos=[video]):
        both = logits(model, inputs)
    with use_prior(model, [image], videos=[video.flip(0)]):
        assert not torch.allclose(logits(model, inputs), both, atol=1e-4)
    for tensors, videos in (([image], []), ([], [video]), ([image], [video, video])):
        with pytest.raises(LostattnError, match="give one per"), use_prior(model, tensors, videos=videos):
            logits(model, inputs)
    with pytest.raises(LostattnError, match="0 videos"), use_prior(model, [image], videos=[video]):
        logits(model, tiny.make_inputs(name))


def test_what_cannot_be_is_refused(plain: Any) -> None:
    model = tiny.make_patched(plain("llava-llama"), tiny.make_plan("llava-llama"))
    with pytest.raises(LostattnError, match="family 'llava' has no prior for videos: send frames as images"):
        model(**tiny.make_inputs("llava-llama"), pixel_values_videos=torch.zeros(1, 2, 3, 56, 56))
    name = "glm4v"
    model = tiny.make_patched(plain(name), tiny.make_plan(name))
    both = tiny.make_video_inputs(name, ("image", "video"))
    with pytest.raises(LostattnError, match="one token"):
        model(**both)
    with pytest.raises(LostattnError, match="one token"):
        model.generate(**both, max_new_tokens=2)
    with pytest.raises(LostattnError, match="beams"):
        model.generate(**tiny.make_video_inputs(name), max_new_tokens=2, num_beams=2)
    model = tiny.make_patched(plain("qwen3_vl"), tiny.make_plan("qwen3_vl"))
    inputs = tiny.make_video_inputs("qwen3_vl")
    with pytest.raises(LostattnError, match="12 video placeholders but no video: give pixel_values_videos"):
        model(input_ids=inputs["input_ids"])
    with pytest.raises(LostattnError, match="prefill_chunk_size"):
        model.generate(**inputs, max_new_tokens=2, prefill_chunk_size=4)
    uniform = tiny.make_patched(plain("qwen3_vl"), tiny.make_plan("qwen3_vl", "uniform"))
    kinds = inputs["mm_token_type_ids"]
    with pytest.raises(LostattnError, match="which runs of tokens are one video"):
        uniform(inputs_embeds=torch.randn(*kinds.shape, 64), mm_token_type_ids=kinds)


def test_families_say_what_they_do_with_videos() -> None:
    for name in tiny.TINY:
        family = get_family(name)
        assert (family.videos is not None) == (tiny.TINY[name].videos is not None)
        assert family.of("image") is family
