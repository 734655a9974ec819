"""Run by test_interpreted.py under TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FP8, ORDERS, Request, drawn
from kernel_summary_cases import STEPS, check_running, check_whole

TYPES = [(t, t) for t in (torch.float32, torch.float16, torch.bfloat16)] + [
    (torch.bfloat16, FP8),
    (torch.bfloat16, torch.float32),
]


@pytest.mark.parametrize("dtype, cache_dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", ["summary", "mixed"])
def test_running(dtype: torch.dtype, cache_dtype: torch.dtype, kind: str) -> None:
    check_running(
        STEPS if dtype == torch.float32 else STEPS[4:6], 1, kind=kind, dtype=dtype, cache_dtype=cache_dtype, kv_heads=1
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.float16])
def test_strides(order: str, cache_dtype: torch.dtype) -> None:
    check_running(STEPS[4:6], 2, order=order, cache_dtype=cache_dtype, dtype=cache_dtype)
    check_whole(STEPS[4:6], 2, order=order, cache_dtype=cache_dtype, dtype=cache_dtype)


@pytest.mark.parametrize("d", [64, 80, 96, 112, 128, 256])
@pytest.mark.parametrize("cache_dtype", [torch.bfloat16, FP8])
def test_head_sizes(d: int, cache_dtype: torch.dtype) -> None:
    check_running(STEPS[4:6], 3, d=d, kv_heads=1, dtype=torch.bfloat16, cache_dtype=cache_dtype)
    check_whole(STEPS[4:6], 3, d=d, kv_heads=1, dtype=torch.bfloat16, cache_dtype=cache_dtype)


@pytest.mark.parametrize("spread", [30.0, 300.0])
def test_scores_far_apart(spread: float) -> None:
    check_running(STEPS[2:], 4, spread=spread, kv_heads=1)
    check_whole(STEPS[2:6], 4, spread=spread, kv_heads=1)


@pytest.mark.parametrize("size", [1, 24, 128, 432])
def test_block_sizes(size: int) -> None:
    check_running(STEPS[4:6], 5, size=size, kv_heads=1)
    check_whole(STEPS[4:6], 5, size=size, kv_heads=1)


def test_many_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lostattn.serving.engine.kernels.triton_summaries.SEGMENT", 16)
    check_running(STEPS[:3], 6, kv_heads=1)


@pytest.mark.parametrize("splits", [1, 2, 5])
def test_whole(splits: int) -> None:
    check_whole(STEPS, 6, splits, kv_heads=1)


@given(
    st.lists(drawn(90, True), min_size=1, max_size=4), st.sampled_from([8, 16, 48]), st.booleans(), st.integers(0, 9)
)
@settings(max_examples=6)
def test_layouts(requests: list[Request], size: int, mixed: bool, seed: int) -> None:
    check_running(requests, seed, kind="mixed" if mixed else "summary", size=size, kv_heads=1)
    check_whole(requests, seed, size=size, kv_heads=1)
