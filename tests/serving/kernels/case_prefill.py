"""Run by test_interpreted.py under TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FP8, LIMIT, ORDERS, Request, drawn
from kernel_prefill_cases import CHUNKS, FEW, check_prefill

TYPES = [*((t, t) for t in LIMIT), *((t, FP8) for t in (torch.float16, torch.bfloat16))]


@pytest.mark.parametrize("dtype, cache_dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", ["summary", "mixed"])
def test_types(dtype: torch.dtype, cache_dtype: torch.dtype, kind: str) -> None:
    requests = CHUNKS if dtype == torch.float32 else CHUNKS[4:7]
    check_prefill(
        requests,
        1,
        kind=kind,
        dtype=dtype,
        cache_dtype=cache_dtype,
        kv_heads=1,
    )


def test_formula() -> None:
    check_prefill(CHUNKS[4:], 2, formula=True, kv_heads=1, group=2)


@pytest.mark.parametrize("order", ORDERS)
def test_strides(order: str) -> None:
    check_prefill(CHUNKS[4:7:2], 2, order=order)


@pytest.mark.parametrize("d", [64, 80, 96, 112, 128, 256])
def test_head_sizes(d: int) -> None:
    check_prefill(CHUNKS[4:7:2], 3, d=d, kv_heads=1, dtype=torch.bfloat16)


@pytest.mark.parametrize("group", [1, 2, 7, 16])
def test_groups(group: int) -> None:
    check_prefill(CHUNKS[4:7:2], 4, group=group)
    check_prefill(FEW[:4], 4, group=group, dtype=torch.float16, kv_heads=1)


@pytest.mark.parametrize("size", [1, 24, 128, 432])
def test_block_sizes(size: int) -> None:
    check_prefill(CHUNKS[4:7:2], 5, size=size, kv_heads=1)


@pytest.mark.parametrize("kind", ["summary", "mixed"])
def test_scores_far_apart(kind: str) -> None:
    check_prefill(CHUNKS[2:5], 6, kind=kind, spread=300.0, kv_heads=1)


@pytest.mark.parametrize("wanted", [[0], [1, 4], [3, 4, 5], []])
def test_wanted_heads(wanted: list[int]) -> None:
    check_prefill(CHUNKS[4:7:2], 7, wanted, kind="mixed")


@given(
    st.lists(drawn(70, True), min_size=1, max_size=4), st.sampled_from([8, 16, 48]), st.booleans(), st.integers(0, 9)
)
@settings(max_examples=6)
def test_layouts(requests: list[Request], size: int, mixed: bool, seed: int) -> None:
    check_prefill(requests, seed, kind="mixed" if mixed else "summary", size=size, kv_heads=1, group=2)
