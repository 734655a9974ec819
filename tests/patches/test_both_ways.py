"""Images whose tokens see each other both ways, under windows too: the closed form against the eager oracle in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_cases import HEADS, LAYOUTS, close, make_job
from lostattn.patches.anymask import any_mask_attention
from lostattn.patches.attention_inputs import AttentionInputs, Layout
from lostattn.patches.closed import closed_attention
from lostattn.patches.summary import running_summary, whole_summaries
from transformers.masking_utils import and_masks, blockwise_overlay, causal_mask_function, or_masks, sdpa_mask
from transformers.masking_utils import sliding_window_overlay as window_overlay

WINDOWS = (None, 1, 3, 7, 13, 60)
SHAPES = {**LAYOUTS, "two images, far apart": "tt" + "v" * 9 + "t" * 20 + "v" * 9 + "t" * 12}


def mask_of(layout: str, rows: int, window: int | None) -> torch.Tensor:
    """What transformers shows, bool (1, 1, rows, K): within the window, what lies in front and all of one's own image."""
    visual = torch.tensor([c == "v" for c in layout])
    begins = visual & ~torch.nn.functional.pad(visual, (1, 0))[:-1]
    blocks = torch.where(visual, begins.cumsum(0) - 1, -1)[None]
    shown = or_masks(causal_mask_function, blockwise_overlay(blocks))
    if window is not None:
        shown = and_masks(shown, window_overlay(window))
    keys = len(layout)
    found = sdpa_mask(1, rows, keys, keys - rows, 0, shown, allow_is_causal_skip=False, use_vmap=True)
    assert found is not None
    return found


def seen_whole(layout: str, window: int | None, rows: int | None = None, **how: object) -> AttentionInputs:
    """A job with transformers' mask, and the layout that is read off it."""
    job = make_job(layout, rows=rows, **how)  # type: ignore[arg-type]
    assert job.layout is not None
    mask = mask_of(layout, job.q.shape[2], window)
    found = job.layout.matching(mask)
    assert found is not None and torch.equal(found.mask(job.q.shape[2], "cpu"), mask[0, 0])
    return replace(job, layout=found, mask=None if found.plain else mask)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("layout", SHAPES)
def test_the_closed_form_is_the_definition(layout: str, window: int | None, heads: str) -> None:
    """Prefill, and chunks that begin inside and behind images."""
    text = SHAPES[layout]
    for rows in (None, 11, 4, 1):
        if rows is None or rows < len(text):
            for dtype in (torch.float64, torch.float32):
                job = seen_whole(text, window, rows, heads=HEADS[heads], dtype=dtype, level=rows != 11)
                close(closed_attention(job), job)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("layout", SHAPES)
def test_rows_behind_the_image_only(layout: str, window: int | None) -> None:
    for rows in (None, 9):
        job = seen_whole(SHAPES[layout], window, rows, heads=HEADS["scattered"])
        job = replace(job, rows=~job.scores.visual[:, -job.q.shape[2] :])
        close(closed_attention(job), job)
        close(any_mask_attention(job), job)


@pytest.mark.parametrize("kv_heads", [1, 2, 8])
@pytest.mark.parametrize("window", [None, 7])
def test_grouped_and_plain_heads_in_half_precision(window: int | None, kv_heads: int) -> None:
    for rows in (None, 1, 20):
        text = SHAPES["two images, far apart"]
        job = seen_whole(text, window, rows, heads=(0, 1, 5), kv_heads=kv_heads, dtype=torch.bfloat16, level=True)
        close(closed_attention(job), job)


@pytest.mark.parametrize("span", [100.0, 1000.0])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_wide_prior(window: int | None, span: float) -> None:
    """A key far above the others hides nothing of a window that has left it behind, as differences of sums would have it."""
    job = seen_whole(SHAPES["two images, far apart"], window, dtype=torch.float32, span=span)
    close(closed_attention(job), job)


@pytest.mark.parametrize("window", WINDOWS)
def test_no_visual_key_is_read(window: int | None) -> None:
    job = seen_whole(SHAPES["many images"], window, dtype=torch.float32)
    k = job.k.clone()
    k[job.scores.visual[:, None].expand(-1, 2, -1)] = torch.nan
    assert torch.equal(closed_attention(replace(job, k=k)), closed_attention(job))


@pytest.mark.parametrize("window", [None, 3, 60])
def test_scores_of_every_kv_head(window: int | None) -> None:
    job = seen_whole(SHAPES["two images, far apart"], window, level=True)
    own = torch.randn(2, 2, job.k.shape[2], dtype=torch.float64).masked_fill(~job.scores.visual[:, None], 0.0)
    job = replace(job, scores=replace(job.scores, by_group=own))
    wanted = any_mask_attention(job)
    assert (closed_attention(job) - wanted).abs().max() < 1e-12


def test_long_windows_run_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lostattn.patches.text_part.BLOCK", 5)
    for window in (3, 13):
        job = seen_whole(SHAPES["two images, far apart"], window)
        close(closed_attention(job), job)


def test_images_that_a_window_has_left_behind_are_gone() -> None:
    """Keys that a cache hands out may hold no image any more."""
    job = make_job("t" * 9, rows=3)
    assert job.layout is not None and not len(job.layout.visual)
    close(closed_attention(job), job)


def test_sums_at_the_ends_of_runs_are_running_sums() -> None:
    torch.manual_seed(0)
    sizes, v = [3, 1, 5], torch.randn(2, 2, 9, 4, dtype=torch.float64)
    for prior in (torch.randn(2, 9, dtype=torch.float64), torch.randn(2, 2, 9, dtype=torch.float64)):
        at = torch.tensor(sizes).cumsum(0) - 1
        mean, mass = running_summary(prior, v)
        got = whole_summaries(prior, v, sizes)
        assert torch.allclose(got[0], mean[:, :, at]) and torch.allclose(got[1], mass[..., at])


@pytest.mark.parametrize("window", [None, 5])
def test_other_masks_are_no_layout(window: int | None) -> None:
    """One pair of row and key that is shown or hidden against the rule, padding, and numbers in the place of yes and no."""
    text = SHAPES["two images, far apart"]
    layout = Layout.of(torch.tensor([[c == "v" for c in text]]))
    assert layout is not None
    mask = mask_of(text, len(text), window)
    assert layout.matching(mask) is not None
    for row, key in ((20, 19), (4, 6), (0, 40), (12, 11)):
        other = mask.clone()
        other[0, 0, row, key] ^= True
        assert layout.matching(other) is None
    assert layout.matching(mask & (torch.arange(len(text)) > 0)) is None
    assert layout.matching(torch.zeros(mask.shape)) is None
    assert isinstance(layout.matching(torch.ones_like(mask).tril()), Layout)


def test_a_static_cache_has_room_behind_the_last_key() -> None:
    text = SHAPES["image in the middle"]
    layout = Layout.of(torch.tensor([[c == "v" for c in text]]))
    assert layout is not None
    wide = torch.nn.functional.pad(mask_of(text, len(text), 6), (0, 9))
    found = layout.matching(wide)
    assert found is not None and found.whole and found.window == 6
