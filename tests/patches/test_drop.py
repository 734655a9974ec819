"""Mode `drop`: visual keys masked out, the same in every form, whatever the scores of the text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from lostattn.patches.anymask import any_mask_attention
from lostattn.patches.attention_inputs import AttentionInputs, Layout, PriorScores
from lostattn.patches.closed import closed_attention
from lostattn.patches.eager import eager_attention
from lostattn.patches.errors import LostattnError
from lostattn.patches.install import exchange
from lostattn.patches.mode_drop import DROPPED

# of logits of a few units; the closed form mixes a mean in with a weight of 0
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 0.1, torch.float16: 0.02}
FORMS = {"closed": closed_attention, "any_mask": any_mask_attention, "eager": lambda job: eager_attention(job)[0]}
LAYOUTS = [
    "tttvvvvvvvvvvvvtttt",
    "vvvvvvvvvvvttttt",
    "tttttttttvvvvvv",
    "tvtvtvtvtvtvtt",
    "vvvvvvvvvvvv",
    "vvvvvvvvvvtvvvvv",
]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 6e-3}


def make_job(layout: str, rows: int, loud: float, dtype: torch.dtype) -> AttentionInputs:
    """Eight heads of two KV groups, heads 0-4 dropped; `loud` makes scores of hundreds."""
    torch.manual_seed(0)
    visual = torch.tensor([c == "v" for c in layout]).expand(2, -1)
    prior = torch.full(visual.shape, DROPPED).masked_fill(~visual, torch.nan)
    q = (torch.randn(2, 8, rows, 32) * loud).to(dtype)
    k, v = (torch.randn(2, 2, len(layout), 32).to(dtype) for _ in range(2))
    scores = PriorScores(prior.double() if dtype == torch.float64 else prior)
    heads = torch.tensor([True] * 5 + [False] * 3)
    return AttentionInputs(q, k, v, 32**-0.5, scores, heads, layout=Layout.of(visual))


def by_hand(job: AttentionInputs) -> torch.Tensor:
    """Row by row: text alone, or the mean of the visual values where a row sees no text; ordinary heads see all."""
    keys, rows = job.k.shape[2], job.q.shape[2]
    out = torch.zeros(*job.q.shape[:3], 32, dtype=torch.float64)
    visual = job.scores.visual[0]
    for h in range(8):
        k, v = job.k[:, h // 4].double(), job.v[:, h // 4].double()
        for i in range(rows):
            seen = torch.arange(keys) <= keys - rows + i
            text = seen & ~visual
            scores = (k @ job.q[:, h, i].double()[:, :, None])[..., 0] * job.scale
            if job.heads[h] and not text.any():
                out[:, h, i] = v[:, seen].mean(1)
                continue
            kept = text if job.heads[h] else seen
            out[:, h, i] = (scores[:, kept].softmax(-1)[..., None] * v[:, kept]).sum(1)
    return out


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", ["all", 1, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_masks_visual_keys_out(form, layout, rows, dtype):
    for loud in (1.0, 40.0):
        job = make_job(layout, len(layout) if rows == "all" else rows, loud, dtype)
        error = (FORMS[form](job).double() - by_hand(job)).abs().max()
        assert error < TOLERANCE[dtype] * (1 if loud == 1 else 20), (loud, error)


def test_no_weight_is_left_beside_text():
    job = make_job("tttvvvvvvvvvvvvtttt", 19, 40.0, torch.float32)
    _, weights = eager_attention(job)
    assert (weights[:, :5, :, 3:15] == 0).all() and (weights[:, 5:, -1, 3:15] > 0).any()


def everything(name, **changes):
    heads = {layer: tuple(range(tiny.HEADS)) for layer in range(tiny.LAYERS)}
    return tiny.make_plan(name, "drop", heads=heads, **changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("path", ["auto", "any_mask", "eager"])
@pytest.mark.parametrize("name", tiny.ONE_PER_FAMILY)
def test_text_does_not_know_the_picture(name, path, dtype, plain):
    """Every head of every layer dropped: other pixels change no logit of any text token; alone and with left padding."""
    if len(tiny.TINY[tiny.family_of(name)].layers) < tiny.TINY[tiny.family_of(name)].depth:
        pytest.skip("layers without attention carry the picture on")
    model = tiny.make_patched(plain(name), everything(name)).to(dtype)
    model.sap_settings.force(path)
    for inputs in (tiny.make_inputs(name), tiny.left_pad([tiny.make_inputs(name), tiny.make_inputs(name, before=9)])):
        real = inputs["attention_mask"].bool()
        text, image = real & (inputs["input_ids"] != tiny.IMAGE), inputs["input_ids"] == tiny.IMAGE
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        found = []
        for pixels in (inputs["pixel_values"], inputs["pixel_values"].flip(-1) * 0.5):
            with torch.no_grad():
                found.append(model(**{**inputs, "pixel_values": pixels}).logits)
        apart = (found[0] - found[1]).abs().amax(-1)
        assert apart[text].max() < ROUNDING[dtype] < apart[image].max()


@pytest.mark.parametrize("queries", ["all", "after_image", "last"])
def test_generation_does_not_know_the_picture(queries, plain):
    """With rows `all` and `after_image`; rows `last` leave the prompt's own rows as they were, so there it may."""
    name = "qwen2_5_vl"
    model = tiny.make_patched(plain(name), everything(name, queries=queries))
    found = [
        model.generate(**tiny.make_inputs(name) | {"pixel_values": torch.full((48, 1176), x)}, max_new_tokens=12)
        for x in (-2.0, 3.0)
    ]
    if queries != "last":
        assert torch.equal(*found)
    model.sap_settings.force("eager")
    inputs = tiny.make_inputs(name) | {"pixel_values": torch.full((48, 1176), 3.0)}
    assert torch.equal(found[1], model.generate(**inputs, max_new_tokens=12))


def test_what_means_nothing_is_refused(plain):
    name = "llava-llama"
    for changes, says in (
        ({"scores": "log"}, "leave --scores out"),
        ({"scores": "prob_rescaled"}, "leave --scores out"),
        ({"blend": 0.5}, "leave --blend out"),
        ({"levels": {1: (0.0, 1.0)}, "heads": {1: (0, 1)}}, "takes no levels"),
    ):
        with pytest.raises(LostattnError, match=says):
            tiny.make_patched(plain(name), tiny.make_plan(name, "drop", **changes))
    assert tiny.make_patched(plain(name), tiny.make_plan(name, "drop", blend=0.0)).sap_plan.inert


def test_a_model_obeys_one_plan_after_the_other(plain):
    name = "llava-llama"
    first, second = tiny.make_plan(name, "drop"), everything(name)
    model, inputs = tiny.make_patched(plain(name), first), tiny.make_inputs(name)
    with torch.no_grad():
        wanted = [tiny.make_patched(plain(name), p)(**inputs).logits for p in (first, second)]
        for plan, logits in ((first, wanted[0]), (second, wanted[1]), (first, wanted[0])):
            exchange(model, plan)
            assert torch.equal(model(**inputs).logits, logits)
        exchange(model, replace(first, heads={}))
        assert torch.equal(model(**inputs).logits, plain(name)(**inputs).logits)
    for plan, says in ((tiny.make_plan(name, "uniform"), "of 'uniform'"), (replace(first, num_layers=4), "plan anew")):
        with pytest.raises(LostattnError, match=says):
            exchange(model, plan)
