"""Parts of the vLLM plugin that need no vLLM: spans and holes, the paged cache, query rows, roles, chunks."""

from __future__ import annotations

import random
from importlib.util import find_spec
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Plan
from lostattn.serving.engine import versions
from lostattn.serving.engine.attention.roles import Shard, local_levels, local_role, needs_whole_prompt, saves_memory
from lostattn.serving.engine.attention.state import PriorStore
from lostattn.serving.engine.attention.steps import make_prefill_chunk, query_spans, sees_images
from lostattn.serving.engine.cache.pages import Pages
from lostattn.serving.engine.cache.spans import (
    RequestInfo,
    holes,
    is_hole,
    last_visual,
    text_before,
    visual_mask,
    visual_spans,
)
from lostattn.serving.engine.cache.text_blocks import DecodeRow, TextBlocks, make_decode_rows
from lostattn.serving.engine.kernels import numba_decode as compiled_query
from lostattn.serving.engine.kernels.choose import choose_decode
from lostattn.serving.engine.kernels.torch_decode import decode_attention

ALL, ONE_GROUP = [[True] * 3] * 2, [[False] * 3, [True] * 3]


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[int, int]]:
    spans, at = [], 0
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 120)), max_size=4)):
        spans.append((at + gap, at + gap + length))
        at += gap + length
    return spans


@given(layouts(), st.sampled_from([4, 8, 32]), st.integers(0, 9), st.integers(0, 20))
def test_holes_are_blocks_that_nobody_reads(spans: list[tuple[int, int]], size: int, first: int, count: int) -> None:
    assert holes(spans, size, first, first + count) == [is_hole(spans, size, b) for b in range(first, first + count)]
    for block in range(first, first + count):
        if is_hole(spans, size, block):
            low, high = block * size, (block + 1) * size
            assert visual_mask(spans, high)[low:].all()
            assert not any(low < b <= high + size for _, b in spans), "an image ends in it or right behind it"


@given(layouts(), st.integers(0, 300))
def test_positions(spans: list[tuple[int, int]], end: int) -> None:
    mask = visual_mask(spans, end)
    assert text_before(spans, end) == int((~mask).sum())
    assert last_visual(spans, end) == (int(np.flatnonzero(mask)[-1]) if mask.any() else -1)


def test_spans_come_from_images_and_videos() -> None:
    def feature(kind: str, *ranges: tuple[int, int]) -> Any:
        return SimpleNamespace(modality=kind, mm_position=SimpleNamespace(extract_embeds_range=lambda: list(ranges)))

    found = visual_spans([feature("image", (9, 12)), feature("audio", (0, 3)), feature("video", (4, 5), (7, 7))])
    assert found == ((4, 6), (7, 8), (9, 13)) and visual_spans(None) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [True, False])
def test_summaries_stay_float32_in_any_cache(dtype: torch.dtype, columns: bool) -> None:
    pages = Pages(torch.zeros(7, 2, 32, 128, dtype=dtype), columns)
    slots = torch.tensor([3, 1, 6, 3]), torch.tensor([0, 31, 7, 8])
    mean = torch.randn(4, 2, 64) * torch.logspace(-8, 8, 64)
    mass = torch.tensor([-torch.inf, 3.25, -80.125, 1e-20])
    pages.write_summaries(slots, mass, mean)
    found_mass, found = pages.read_summaries(slots)
    assert torch.equal(found_mass, mass)
    assert ((found - mean).abs() <= 2e-7 * mean.abs()).all()
    by_head, _ = pages.read_summaries(slots, by_head=True)
    assert torch.equal(by_head, mass[:, None].expand(-1, 2))
    different = torch.stack([mass, mass.flip(0) * 3], 1)
    pages.write_summaries(slots, different, mean)
    by_head, found = pages.read_summaries(slots, by_head=True)
    assert torch.equal(by_head, different) and ((found - mean).abs() <= 2e-7 * mean.abs()).all()


def fill(pages: Pages, row: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Write keys and values (H, T, D) of one request into the blocks of its row."""
    at = torch.arange(k.shape[1])
    to_k, to_v = pages.own
    to_k[row[at // pages.size], :, at % pages.size] = k.transpose(0, 1).to(to_k.dtype)
    to_v[row[at // pages.size], :, at % pages.size] = v.transpose(0, 1).to(to_v.dtype)


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("heads", [ALL, ONE_GROUP])
def test_query_rows_equal_attention_with_one_more_key(columns: bool, heads: list[list[bool]]) -> None:
    size, d = 8, 16
    pages = Pages(torch.randn(40, 2, size, 2 * d), columns)
    table = torch.randperm(39)[:30].view(3, 10) + 1
    spans, lengths = [((3, 30), (33, 50)), (), ((0, 9),)], [60, 17, 20]
    entries, wanted = [], []
    q, mean, mass, level = torch.randn(3, 2, 3, d), torch.randn(3, 2, d), torch.randn(3), torch.randn(2, 3)
    for i, (seen, length) in enumerate(zip(spans, lengths, strict=True)):
        k, v = torch.randn(2, length, d), torch.randn(2, length, d)
        fill(pages, table[i], k, v)
        entries.append(DecodeRow(i, RequestInfo(str(i), seen, length), i, length - 1))
        text = torch.from_numpy(~visual_mask(seen, length))
        scores = torch.einsum("gqd,gtd->gqt", q[i], k[:, text]) * 0.3
        scores = torch.cat([scores, (mass[i] + level)[..., None]], -1).softmax(-1)
        wanted.append(torch.einsum("gqt,gtd->gqd", scores, torch.cat([v[:, text], mean[i][:, None]], 1)))
    asked = torch.tensor(heads)
    queries = make_decode_rows(entries, table, size)
    forms = [decode_attention]
    if find_spec("numba") is not None:
        forms.append(choose_decode(torch.device("cpu")))
    for form in forms:
        found = form(queries, q, pages, 0.3, mass, mean, level, asked)
        assert torch.allclose(found[:, asked], torch.stack(wanted)[:, asked], atol=1e-5)
    pieces = queries.split(3)
    assert len(pieces) > 1 and sum(len(p.entries) for p in pieces) == 3


def test_a_chunk_knows_its_keys_and_what_it_leaves() -> None:
    request = RequestInfo("a", ((4, 40),), 60)
    (query,) = query_spans([request], [0, 16], [32])  # positions 16..31, all inside the image
    assert sees_images(query)
    chunk = make_prefill_chunk(query, torch.arange(1, 11)[None], 8)
    assert len(chunk.text[0]) == 4 and chunk.carry is not None
    assert chunk.layout.runs == ((0, 4, False), (4, 21, True))
    # block 2 (16..23) is a hole, block 3 ends the chunk
    assert chunk.kept.tolist() == [15] and [x.tolist() for x in chunk.slots] == [[4], [7]]
    (query,) = query_spans(
        [request], [0, 29], [61]
    )  # positions 32..60: the image ends with its block, text behind it is no summary
    chunk = make_prefill_chunk(query, torch.arange(1, 11)[None], 8)
    assert chunk.kept.tolist() == [7] and [x.tolist() for x in chunk.slots] == [[5], [7]]
    (query,) = query_spans(
        [RequestInfo("b", ((4, 36),), 60)], [0, 34], [34]
    )  # a block before text, a block that ends a chunk
    chunk = make_prefill_chunk(query, torch.arange(1, 11)[None], 8)
    assert chunk.kept.tolist() == [7, 31, 33] and [x.tolist() for x in chunk.slots] == [[1, 4, 5], [7, 7, 1]]


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "family": "llava",
        "mode": "uniform",
        "preset": "paper",
        "scores": "raw",
        "queries": "all",
        "num_layers": 2,
        "num_heads": 8,
        "num_kv_heads": 4,
        "heads": {0: (0, 1, 4), 1: tuple(range(8))},
    }
    return Plan(**{**values, **changes})


def test_all_ranks_keep_summaries_for_equally_many_groups() -> None:
    whole = [local_role(plan(), 0, Shard(rank, 4, 2), 2) for rank in (0, 1)]
    assert [r.whole for r in whole] == [(), ()] and [r.scattered for r in whole] == [(0, 1), (0,)]
    assert local_role(plan(), 0, Shard(0, 8, 4), 1).whole == (0,)
    assert [local_role(plan(), 1, Shard(rank, 4, 2), 2).whole for rank in (0, 1)] == [(0, 1), (0, 1)]


@pytest.mark.parametrize(
    "changes", [{"queries": "after_image"}, {"queries": "last"}, {"blend": 0.5}, {"scores": "prob_rescaled"}]
)
def test_plans_that_need_visual_keys_save_nothing(changes: dict[str, Any]) -> None:
    assert saves_memory(plan()) and not saves_memory(plan(**changes))
    assert local_role(plan(**changes), 1, Shard(0, 8, 4), 1).whole == ()
    assert needs_whole_prompt(plan(scores="prob_rescaled")) and not needs_whole_prompt(plan())


def test_levels_follow_their_heads() -> None:
    levels = local_levels(plan(scores="log", levels={0: (1.0, 2.0, 3.0)}), 0, Shard(1, 4, 2))
    assert levels is not None and levels.tolist() == [3.0, 0, 0, 0] and levels.dtype == torch.float32


def test_the_store_keeps_a_prior_by_slot() -> None:
    store, cache, step = PriorStore(), torch.zeros(5, 1, 4, 2), object()
    store.write(step, torch.tensor([4, -1, 9]), torch.tensor([1.0, 2.0, torch.nan]), cache)
    store.write(step, torch.tensor([5]), torch.tensor([7.0]), cache)  # the same step: another layer of the group
    found = store.read((torch.tensor([1, 1, 2]), torch.tensor([0, 1, 1])), 4)
    assert found[0] == 1.0 and found[1:].isnan().all()


@pytest.mark.parametrize(
    ("version", "fine"), [("0.31.9", False), ("0.32.0", True), ("0.33.2", True), ("0.34.0", False)]
)
def test_versions(version: str, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_vllm", lambda: ("vllm", version))
    if fine:
        versions.check_vllm()
        assert versions.how_tested().startswith(f"{version} (tested ") and "GPU" in versions.how_tested()
    else:
        for asked in (versions.check_vllm, versions.how_tested):
            with pytest.raises(LostattnError, match="vllm >= 0.32, < 0.34"):
                asked()


def test_random_batches_never_mix_requests() -> None:
    generator = random.Random(0)
    requests = [RequestInfo(str(i), ((2, 9),) if generator.random() < 0.5 else (), 20) for i in range(6)]
    starts, totals = [0, 1, 1, 5, 6, 9, 10], [20, 3, 30, 21, 12, 5]
    found = query_spans(requests, starts, totals)
    assert [p.row for p in found] == [0, 2, 3, 4, 5]
    assert all(p.total - p.past == p.end - p.start for p in found)


@given(
    st.lists(st.tuples(layouts(), st.integers(1, 70)), min_size=1, max_size=4),
    st.sampled_from([4, 8, 32]),
    st.booleans(),
    st.integers(1, 80),
)
@settings(max_examples=60)
def test_text_blocks_that_grow_equal_those_of_a_new_batch(
    made: list[tuple[list[tuple[int, int]], int]], size: int, every: bool, steps: int
) -> None:
    """Over steps, with blocks in no order: the same text slots, in the same order, as if worked out anew."""
    starts = [max((b for _, b in spans), default=0) + more for spans, more in made]
    infos = [
        RequestInfo(str(i), tuple(spans), start) for i, (spans, start) in enumerate(zip(made, starts, strict=True))
    ]
    infos = [RequestInfo(r.request_id, tuple(spans), r.prompt) for r, (spans, _) in zip(infos, made, strict=True)]
    width = -(-(max(starts) + steps) // size)
    table = torch.randperm(len(made) * width).view(len(made), width)
    entries = [DecodeRow(i, info, i, start) for i, (info, start) in enumerate(zip(infos, starts, strict=True))]
    blocks = TextBlocks(entries, size, every)
    for step in range(steps):
        positions = np.array([start + step for start in starts])
        if step and not blocks.follows(positions):
            assert step >= 7 * size
            break
        assert not blocks.follows(positions + 2) and not blocks.follows(positions - 1)
        found = blocks.at_step(positions, table)
        anew = make_decode_rows([e._replace(position=e.position + step) for e in entries], table, size, every)
        for i, (info, start) in enumerate(zip(infos, starts, strict=True)):
            at = np.flatnonzero(~visual_mask(info.spans, start + step + 1))
            wanted = (table[i].numpy()[at // size] * size + at % size).tolist()
            for rows in (found, anew):
                slots = rows.blocks[i][:, None] * size + torch.arange(size)
                assert slots.flatten()[~rows.hidden[i]].tolist() == wanted
        assert (found.lengths is None) == (not every)
        assert found.lengths is None or found.lengths.tolist() == (positions + 1).tolist()


SPANS, ENDS = [((10, 500), (520, 800)), ((0, 640),), ((3, 4),)], [850, 641, 960]


def paged(dtype: torch.dtype, d: int, size: int) -> tuple[Pages, torch.Tensor, list[DecodeRow]]:
    """A cache whose blocks lie in no order, its table, and the last rows of three requests."""
    width = -(-960 // size)
    pages = Pages(torch.randn(3 * width, 2, size, 2 * d).to(dtype), True)
    table = torch.randperm(3 * width).view(3, width)
    pages.own[1][table[0, 850 // size], :, 850 % size :] = torch.nan  # never written
    return (
        pages,
        table,
        [DecodeRow(i, RequestInfo(str(i), s, n), i, n - 1) for i, (s, n) in enumerate(zip(SPANS, ENDS, strict=True))],
    )


def by_the_book(pages: Pages, table: torch.Tensor, q: torch.Tensor, asked: torch.Tensor, *summary: torch.Tensor) -> Any:
    """Row by row and head by head in float64: asked heads see text and the summary, the others all keys."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    mass, mean, level = (x.double() for x in summary)
    for i, (spans, end) in enumerate(zip(SPANS, ENDS, strict=True)):
        at = torch.arange(end)
        k, v = (x.double() for x in pages.tokens((table[i, at // pages.size], at % pages.size)))
        text = torch.from_numpy(~visual_mask(spans, end))
        for g, h in product(range(q.shape[1]), range(q.shape[2])):
            scores, values = k[g] @ q[i, g, h].double() * 0.2, v[g]
            if asked[g, h]:
                scores = torch.cat([scores[text], (mass[i] + level[g, h])[None]])
                values = torch.cat([values[text], mean[i, g][None]])
            out[i, g, h] = scores.softmax(0) @ values
    return out


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("threads", "group", "d", "size"),
    [(1, 1, 64, 32), (3, 3, 32, 32), (1, 4, 128, 32), (2, 7, 80, 16), (1, 8, 48, 128)],
)
def test_compiled_queries_equal_the_book(
    threads: int, group: int, d: int, size: int, dtype: torch.dtype, every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    pages, table, entries = paged(dtype, d, size)
    q, mean, mass, level = (torch.randn(s) for s in ((3, 2, group, d), (3, 2, d), (3,), (2, group)))
    q = (q * 4 / d**0.25).to(dtype)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(compiled_query, "FEW", 1)
    queries = make_decode_rows(entries, table, size, every)
    assert pages.planes is not None and Pages(pages.cache, False).planes is None
    for asked in (torch.ones(2, group).bool(), torch.rand(2, group) < 0.5, torch.zeros(2, group).bool()):
        found = compiled_query.numba_decode_attention(queries, q, pages, 0.2, mass, mean, level, asked)
        wanted = by_the_book(pages, table, q, asked, mass, mean, level)
        seen = torch.ones_like(asked) if every else asked
        assert torch.isfinite(wanted).all() and torch.allclose(found[:, seen].double(), wanted[:, seen], atol=5e-6)


def test_kernels_are_prepared_while_the_model_is_loaded() -> None:
    pytest.importorskip("numba")
    compiled_query.prepare.cache_clear()
    torch.set_default_dtype(torch.bfloat16)  # as vLLM does
    try:
        compiled_query.prepare(32, 32, torch.bfloat16)
    finally:
        torch.set_default_dtype(torch.float32)
    from lostattn.serving.engine.kernels.numba_decode_kernel import attention_kernel

    kernel = attention_kernel(32, 32)
    known = len(kernel.signatures)
    test_hidden_keys_and_values_may_be_anything()
    assert known and len(kernel.signatures) == known, "a request had to wait for the compiler"


def test_hidden_keys_and_values_may_be_anything() -> None:
    pytest.importorskip("numba")
    pages, table, entries = paged(torch.bfloat16, 32, 32)
    arguments = torch.randn(3, 2, 3, 32), pages, 0.2, torch.randn(3), torch.randn(3, 2, 32), torch.zeros(2, 3)
    queries = make_decode_rows(entries, table, 32)
    before = compiled_query.numba_decode_attention(queries, *arguments)
    for query in pages.own:  # halves of summaries in slots of images may read as NaN
        query.view(torch.int16)[table[0, 0], :, 10:] = -1
    assert torch.equal(compiled_query.numba_decode_attention(queries, *arguments), before)
