"""Three forms of the attention, one meaning: all against the eager oracle in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_cases import HEADS, LAYOUTS, TOLERANCE, close, make_job, oracle
from lostattn.patches.anymask import any_mask_attention
from lostattn.patches.attention_inputs import causal
from lostattn.patches.closed import closed_attention
from lostattn.patches.eager import eager_attention
from lostattn.patches.summary import visual_summary


def test_oracle_is_the_definition():
    """The oracle itself, against the formula written with loops."""
    job = make_job("tvvt", heads=(1,), batch=1, level=True)
    got = eager_attention(job)[0]
    for h in range(8):
        for t in range(4):
            s = [float(job.q[0, h, t] @ job.k[0, h // 4, j] * job.scale) for j in range(t + 1)]
            if h == 1:
                p = job.scores.prior[0] + job.scores.level[1]
                s = [float(p[j]) if j in (1, 2) else x for j, x in enumerate(s)]
            w = torch.softmax(torch.tensor(s, dtype=torch.float64), 0)
            assert torch.allclose(got[0, h, t], w @ job.v[0, h // 4, : t + 1], atol=1e-12)


@pytest.mark.parametrize("form", [closed_attention, any_mask_attention])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_forms_agree(form, layout, heads):
    for rows in (None, 1, 11):  # prefill, decode, a chunk that starts inside an image
        if rows is None or rows < len(LAYOUTS[layout]):
            for dtype in (torch.float64, torch.float32):
                job = make_job(LAYOUTS[layout], HEADS[heads], rows, dtype=dtype, level=rows != 11)
                close(form(job), job)


@pytest.mark.parametrize("form", [closed_attention, any_mask_attention])
@pytest.mark.parametrize("kv_heads", [2, 4, 8])
def test_every_choice_of_heads(form, kv_heads):
    """Heads may leave KV heads out and be served unevenly by the others."""
    for choice in range(1, 2**8):
        heads = [h for h in range(8) if choice >> h & 1]
        for rows in (None, 1, 4):
            job = make_job("ttvvvvttt", heads, rows, kv_heads, batch=1)
            close(form(job), job)


@pytest.mark.parametrize("form", [closed_attention, any_mask_attention])
@pytest.mark.parametrize("kv_heads", [1, 2, 8])
def test_grouped_and_plain_heads_in_half_precision(form, kv_heads):
    for rows in (None, 1, 20):
        job = make_job(LAYOUTS["image in the middle"], (0, 1, 5), rows, kv_heads, torch.bfloat16, level=True)
        close(form(job), job)


@pytest.mark.parametrize("span", [100.0, 1000.0])
@pytest.mark.parametrize("rows", [None, 1, 12])
def test_closed_form_with_a_wide_prior(rows, span):
    """Scores 300 apart would underflow float32 prefix sums, 3000 apart float64 ones."""
    job = make_job(LAYOUTS["many images"], rows=rows, dtype=torch.float32, span=span)
    close(closed_attention(job), job)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_behind_the_image_only(layout):
    job = make_job(LAYOUTS[layout], HEADS["scattered"])
    for rows in (len(LAYOUTS[layout]), 9):
        part = make_job(LAYOUTS[layout], HEADS["scattered"], rows)
        visual = part.scores.visual[:, -rows:]
        part = replace(part, rows=~visual)
        close(closed_attention(part), part)
        close(any_mask_attention(part), part)
    assert job.rows is None


@pytest.mark.parametrize("blend", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("last_rows", [1, 12])
def test_any_mask_form_blends_and_takes_single_rows(blend, last_rows):
    job = make_job(LAYOUTS["image in the middle"], HEADS["scattered"], dtype=torch.float32, level=True)
    rows = torch.arange(job.q.shape[2]).expand(2, -1) >= job.q.shape[2] - last_rows
    for some in (None, rows):
        part = replace(job, blend=blend, rows=some)
        close(any_mask_attention(part), part)


def test_any_mask_form_takes_other_heads_per_sample_padding_and_additive_masks():
    job = make_job(LAYOUTS["image in the middle"], dtype=torch.float32)
    heads = torch.tensor([[1, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]], dtype=torch.bool)
    keys = job.k.shape[2]
    padding = torch.tensor([3, 0])[:, None] <= torch.arange(keys)
    mask = causal(keys, keys, "cpu") & padding[:, None, None, :]
    additive = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    for written in (mask, additive):
        part = replace(job, heads=heads, mask=written, layout=None)
        got, wanted = any_mask_attention(part), oracle(part)
        real = padding[:, None, :, None].expand_as(got)
        assert torch.isfinite(got).all()
        assert (got.double() - wanted)[real].abs().max() < TOLERANCE[torch.float32]


def test_keys_with_exact_scores_take_no_level():
    job = make_job(LAYOUTS["many images"], HEADS["groups and more"], dtype=torch.float32, level=True)
    exact = job.scores.visual & (torch.arange(job.k.shape[2]) < 12)
    part = replace(job, scores=replace(job.scores, exact=exact))
    close(any_mask_attention(part), part)
    assert (oracle(part) - oracle(job)).abs().max() > 1e-2


def test_gradients_of_the_any_mask_form():
    job = make_job(LAYOUTS["image in the middle"], HEADS["scattered"], level=True)
    parts = {name: getattr(job, name).clone().requires_grad_() for name in ("q", "k", "v")}
    prior = job.scores.prior.clone().requires_grad_()
    job = replace(job, **parts, scores=replace(job.scores, prior=prior))
    weight = torch.randn_like(job.q)
    found = []
    for form in (any_mask_attention, lambda j: eager_attention(j)[0]):
        found.append(torch.autograd.grad((form(job) * weight).sum(), [*parts.values(), prior]))
    for got, wanted in zip(*found, strict=True):
        assert torch.allclose(got, wanted, atol=1e-10)
        assert wanted.abs().max() > 0


def test_closed_form_reads_no_visual_key():
    """Visual keys full of NaN: any score of a patched head on one of them would show."""
    job = make_job(LAYOUTS["many images"], range(8), dtype=torch.float32)
    k = job.k.clone()
    k[job.scores.visual[:, None].expand(-1, 2, -1)] = torch.nan
    for rows in (None, 1, 9):
        q = job.q if rows is None else job.q[:, :, -rows:]
        got = closed_attention(replace(job, q=q, k=k))
        assert torch.equal(got, closed_attention(replace(job, q=q)))


def test_summary_replaces_visual_values_at_decode():
    job = make_job(LAYOUTS["many images"], range(8), 1, dtype=torch.float32)
    summary = visual_summary(job.scores.prior, job.v, job.layout)
    v = job.v.clone()
    v[job.scores.visual[:, None].expand(-1, 2, -1)] = torch.nan
    close(closed_attention(replace(job, v=v, summary=summary)), job)
