"""The Triton kernels on a GPU: the interpreter's cases with real types and tiles, and steps captured in CUDA graphs."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FP8, LIMIT, ORDERS, Request, drawn, make_scene
from kernel_decode_cases import BATCH, check_decode, compare, spread_rows
from kernel_prefill_cases import CHUNKS, FEW, check_prefill
from kernel_summary_cases import STEPS, check_running, check_whole
from lostattn.serving.engine.kernels.triton_decode import DecodeScratch, decode
from lostattn.serving.engine.kernels.triton_prepare import prepare

TYPES = [*((t, t) for t in LIMIT), *((t, FP8) for t in LIMIT)]
LONG = [Request(3000, 1, ((200, 1500), (1500, 2100))), Request(2500, 1), Request(0, 0), *BATCH]
LONG_CHUNKS = [Request(2200, 2000, ((100, 900), (1000, 1800))), *CHUNKS]


@pytest.mark.parametrize("dtype, cache_dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", ["summary", "mixed"])
@pytest.mark.parametrize("splits", [1, 8, 64])
def test_decode_types(dtype: torch.dtype, cache_dtype: torch.dtype, kind: str, splits: int) -> None:
    check_decode(LONG, 1, kind=kind, splits=splits, dtype=dtype, cache_dtype=cache_dtype, d=128, group=7, device="cuda")


@pytest.mark.parametrize("d", [64, 80, 96, 112, 128, 256])
@pytest.mark.parametrize("size", [16, 24, 64, 128, 432])
def test_shapes(d: int, size: int) -> None:
    for dtype, cache_dtype in ((torch.bfloat16, torch.bfloat16), (torch.bfloat16, FP8), (torch.float32, torch.float32)):
        options = {"d": d, "size": size, "dtype": dtype, "cache_dtype": cache_dtype, "device": "cuda"}
        check_decode(BATCH, 2, splits=4, **options)
        check_running(STEPS, 2, **options)
        check_whole(STEPS, 2, **options)
        check_prefill(CHUNKS, 2, **options)


@pytest.mark.parametrize("group", [1, 2, 4, 7, 8, 16])
@pytest.mark.parametrize("order", ORDERS)
def test_groups_and_strides(group: int, order: str) -> None:
    for kind in ("summary", "mixed"):
        check_decode(BATCH, 3, splits=3, group=group, order=order, kind=kind, dtype=torch.bfloat16, device="cuda")
        for requests in (CHUNKS, FEW):
            check_prefill(requests, 3, group=group, order=order, kind=kind, dtype=torch.bfloat16, device="cuda")


@pytest.mark.parametrize("wanted", [[0], [1, 4], [3, 4, 5], []])
def test_wanted_heads(wanted: list[int]) -> None:
    check_decode(BATCH, 4, kind="mixed", wanted=wanted, splits=3, device="cuda")
    check_prefill(CHUNKS, 4, wanted, kind="mixed", device="cuda")


@pytest.mark.parametrize("dtype, cache_dtype", TYPES, ids=str)
def test_prefill_types(dtype: torch.dtype, cache_dtype: torch.dtype) -> None:
    if dtype == torch.float32 and cache_dtype == FP8:
        pytest.skip("the 16 bits of a summary are wider than the limit of float32")
    for kind in ("summary", "mixed"):
        check_prefill(LONG_CHUNKS, 5, kind=kind, dtype=dtype, cache_dtype=cache_dtype, d=128, group=7, device="cuda")
        check_running(LONG_CHUNKS, 5, kind=kind, dtype=dtype, cache_dtype=cache_dtype, d=128, device="cuda")


@pytest.mark.parametrize("spread", [30.0, 300.0])
def test_scores_far_apart(spread: float) -> None:
    check_decode(LONG, 6, spread=spread, device="cuda")
    check_running(LONG_CHUNKS, 6, spread=spread, device="cuda")
    check_whole(LONG_CHUNKS, 6, spread=spread, device="cuda")
    check_prefill(LONG_CHUNKS, 6, spread=spread, device="cuda")


@given(
    st.lists(drawn(400, True), min_size=1, max_size=6), st.sampled_from([16, 48, 128]), st.booleans(), st.integers(0, 9)
)
@settings(max_examples=60)
def test_layouts(requests: list[Request], size: int, mixed: bool, seed: int) -> None:
    check_prefill(requests, seed, kind="mixed" if mixed else "summary", size=size, device="cuda")


def test_a_graph_follows_the_step() -> None:
    """One captured step (prepare and three layers) replayed after lengths, blocks, images and queries have changed in place."""
    batches = [
        [Request(300, 1, ((20, 200),)), Request(0, 0), Request(90, 1), Request(1000, 1, ((5, 900),))],
        [Request(50, 1), Request(700, 1, ((0, 64), (64, 600))), Request(333, 1, ((100, 300),)), Request(0, 0)],
        [Request(1001, 1, ((999, 1000),)), Request(17, 1, ((0, 16),)), Request(0, 0), Request(400, 1)],
    ]
    scenes = [make_scene(batch, i, d=128, dtype=torch.bfloat16, device="cuda") for i, batch in enumerate(batches)]
    step = make_scene([Request(1016, 1, ((3, 5), (9, 12)))] * 4, 9, d=128, dtype=torch.bfloat16, device="cuda")
    rows, text = spread_rows(step).contiguous(), step.text()
    rows_out = [torch.zeros_like(rows) for _ in range(3)]
    scratch = DecodeScratch.of(4, rows.shape[1], step.cache.k.shape[1], rows.shape[2], 16, "cuda")

    def run() -> None:
        prepare(text, step.table, step.lengths, step.spans, step.cache.k.shape[1], 264)
        for out in rows_out:
            decode(out, rows, step.cache, text, scratch, step.scale, step.level)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for scene in [*scenes, scenes[0]]:
        step.pages.cache.fill_(torch.nan)
        step.pages.cache[: len(scene.pages.cache)] = scene.pages.cache
        step.table.zero_()
        step.table[:, : scene.table.shape[1]] = scene.table
        step.lengths.copy_(scene.lengths)
        step.level.copy_(scene.level)
        rows.copy_(spread_rows(scene))
        step.spans.at.copy_(scene.spans.at)
        for to, source in zip(step.spans[1:], scene.spans[1:], strict=True):
            to[: len(source)] = source
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(rows_out[0], rows_out[1]) and torch.equal(rows_out[0], rows_out[2])
        compare(scene, rows_out[0].cpu(), None)
