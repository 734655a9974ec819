"""Run by test_interpreted.py under TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FP8, LIMIT, ORDERS, Request, drawn
from kernel_decode_cases import BATCH, check_decode
from lostattn.serving.engine.kernels.triton_prepare import (
    Spans,
    Text,
    prepare,
    prepare_rows,
    specify_prepare,
    specify_rows,
    unit_of,
)

TYPES = [*((dtype, dtype) for dtype in LIMIT), *((dtype, FP8) for dtype in LIMIT), (torch.bfloat16, torch.float32)]


@pytest.mark.parametrize("dtype, cache_dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind, splits", [("summary", 1), ("summary", 3), ("mixed", 2)])
def test_types(dtype: torch.dtype, cache_dtype: torch.dtype, kind: str, splits: int) -> None:
    requests = BATCH[:7] if splits == 1 else BATCH[1:4]
    check_decode(
        requests,
        1,
        kind=kind,
        splits=splits,
        dtype=dtype,
        cache_dtype=cache_dtype,
        d=64,
        kv_heads=1,
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["summary", "mixed"])
def test_strides(order: str, kind: str) -> None:
    check_decode(BATCH[2:5], 2, kind=kind, splits=2, order=order)


@pytest.mark.parametrize("d", [64, 80, 96, 112, 128, 256])
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16, FP8])
def test_head_sizes(d: int, cache_dtype: torch.dtype) -> None:
    dtype = torch.bfloat16 if cache_dtype == FP8 else cache_dtype
    check_decode([BATCH[0], BATCH[3]], 3, d=d, kv_heads=1, splits=2, dtype=dtype, cache_dtype=cache_dtype, launches=1)


@pytest.mark.parametrize("group", [1, 2, 7, 16])
def test_groups(group: int) -> None:
    check_decode(BATCH[1:4], 4, group=group, kv_heads=2, splits=2)


@pytest.mark.parametrize("size", [1, 8, 24, 48, 128, 432])
def test_block_sizes(size: int) -> None:
    check_decode([BATCH[0], BATCH[2], Request(300, 1, ((3, 140), (150, 239)))], 5, size=size, kv_heads=1, splits=2)


@pytest.mark.parametrize("splits", [1, 2, 5])
def test_splits(splits: int) -> None:
    """Long texts, of which each split has parts of other lengths; the batch is padded."""
    check_decode([Request(400, 1, ((100, 200),)), Request(0, 0), Request(40, 1)], 6, splits=splits, kv_heads=1)


@pytest.mark.parametrize("wanted", [[0], [1, 4], [3, 4, 5], []])
def test_wanted_heads(wanted: list[int]) -> None:
    for splits in (1, 3):
        check_decode(BATCH[1:4], 7, kind="mixed", wanted=wanted, splits=splits)


@pytest.mark.parametrize("kind", ["summary", "mixed"])
def test_scores_far_apart(kind: str) -> None:
    check_decode(BATCH[:4], 8, kind=kind, spread=300.0)


@given(
    st.lists(drawn(), min_size=1, max_size=4),
    st.sampled_from([4, 16, 48]),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 9),
)
@settings(max_examples=10)
def test_layouts(requests: list[Request], size: int, splits: int, mixed: bool, seed: int) -> None:
    check_decode(requests, seed, kind="mixed" if mixed else "summary", size=size, splits=splits, group=2, launches=1)


@given(
    st.lists(st.one_of(drawn(300, True), st.just(Request(0, 0))), min_size=1, max_size=4),
    st.sampled_from([1, 16, 64, 128, 432]),
)
@settings(max_examples=25)
def test_prepare(requests: list[Request], size: int) -> None:
    """Lists, summaries, rows against the definitions, twice with the same buffers."""
    from kernel_cases import _ints, _spans

    rng = torch.Generator().manual_seed(size)
    table = torch.randint(1, 1000, (len(requests), 301), generator=rng).int()
    starts = _ints([0, *torch.tensor([r.new for r in requests]).cumsum(0).tolist()])
    lengths, spans = _ints([r.length for r in requests]), _spans(requests)
    text = Text.of(len(requests), 301, size, "cpu")
    keys = 0
    for given_starts in (starts, None):
        text.blocks.fill_(-7)
        prepare(text, table, lengths, spans, 4, 40, given_starts)
        wanted = specify_prepare(table, lengths, spans, size, given_starts)
        for row, (units, summary, carry) in enumerate(wanted):
            n = int(text.count[row])
            assert list(zip(*(x[row, :n].tolist() for x in (text.blocks, text.at, text.words)), strict=True)) == units
            assert (text.blocks[row, n:] == -7).all()
            assert (int(text.summary[row]), int(text.carry[row])) == (summary, carry)
        keys = int(text.count.sum()) * unit_of(size)
        assert int(text.least) == -(-keys // 10) and not text.sums.any()
    seen = torch.full((int(starts[-1]) + 2,), -5, dtype=torch.int32)
    prepare_rows(seen, starts, lengths, Spans(*spans))
    assert seen.tolist() == [*specify_rows(starts, lengths, spans, len(seen))[:-2], -5, -5]
