"""Predicted savings against counting every product one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hub_configs import QWEN
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches.plan import Band, Plan
from lostattn.serving.shape import Shape, model_shape
from lostattn.surgery import predict as module
from lostattn.surgery.predict import TEXT_AFTER, TEXT_BEFORE, predict

SHAPE = Shape(family=None, layers=3, heads=4, kv_heads=2, head_dim=8, dtype_bytes=2)  # type: ignore[arg-type]


def plan_of(heads: dict[int, tuple[int, ...]], queries: str = "all", **changes: Any) -> Plan:
    return Plan("llava", "uniform", "paper", "raw", queries, 3, 4, 2, heads=heads, **changes)


def counted(plan: Plan, visual: int) -> tuple[int, int]:
    """(all FLOPs, FLOPs not spent): over every layer, head, query and key; a product of D numbers is 2 D operations.

    A patched head never meets visual keys one by one; it reads a running sum of their values, which is built once per KV
    head that serves a patched head.
    """
    keys = TEXT_BEFORE + visual + TEXT_AFTER
    image = range(TEXT_BEFORE, TEXT_BEFORE + visual)
    pair = 2 * (2 * SHAPE.head_dim)  # q.k and weight * v
    total = saved = 0
    for layer in range(SHAPE.layers):
        for head in range(SHAPE.heads):
            patched = head in plan.heads.get(layer, ())
            for query in range(keys):
                rows = plan.queries == "all" or query >= image.stop
                total += pair * (query + 1)
                if patched and rows:
                    saved += pair * sum(key in image for key in range(query + 1))
        touched = {head // 2 for head in plan.heads.get(layer, ())}
        saved -= len(touched) * visual * 2 * SHAPE.head_dim
    return total, saved


HEADS = st.dictionaries(st.integers(0, 2), st.sets(st.integers(0, 3), min_size=1).map(lambda h: tuple(sorted(h))))


@given(HEADS, st.integers(1, 12), st.sampled_from(["all", "after_image"]))
def test_flops_equal_counting(heads: dict[int, tuple[int, ...]], visual: int, queries: str) -> None:
    plan = plan_of(heads, queries)
    (found,) = predict(plan, SHAPE, (visual,))
    total, saved = counted(plan, visual)
    assert found.attention_flops == total
    assert found.attention_flops_saved == max(saved, 0)


def test_kv_bytes_equal_counting() -> None:
    plan = plan_of({0: (0, 1, 2, 3), 1: (0, 2), 2: (2, 3)})
    (found,) = predict(plan, SHAPE, (10,))
    slot = 2 * 8 * 2  # key and value of 8 numbers of two bytes
    assert found.kv_bytes == 3 * 2 * (TEXT_BEFORE + 10 + TEXT_AFTER) * slot
    assert found.kv_bytes_saved == 3 * 9 * slot  # three whole groups keep one slot of ten
    row = found.as_row()
    assert row["kv_bytes_saved_share"] == found.kv_bytes_saved / found.kv_bytes
    assert row["visual_tokens"] == 10 and 0 < row["attention_flops_saved_share"] < 1


@pytest.mark.parametrize(
    "plan",
    [
        plan_of({}),
        plan_of({0: (0, 1)}, "last"),
        plan_of({0: (0, 1)}, blend=0.5),
        plan_of({0: (0, 1)}, blend=0.0),
        plan_of({0: ()}, band=Band(0.3, 0.6)),
    ],
    ids=["empty", "last", "blended", "inert", "dynamic"],
)
def test_what_saves_nothing(plan: Plan) -> None:
    for found in predict(plan, SHAPE):
        assert found.attention_flops_saved == 0 and found.kv_bytes_saved == 0 and found.attention_flops > 0


def test_text_rows_behind_the_image_save_no_memory() -> None:
    plan = plan_of({0: (0, 1, 2, 3)}, "after_image")
    assert all(p.kv_bytes_saved == 0 and p.attention_flops_saved > 0 for p in predict(plan, SHAPE))


def test_a_published_model() -> None:
    """All heads of 27 of 28 layers of Qwen2.5-VL-7B: the shares tend to 27/28."""
    shape = model_shape(QWEN)
    heads = {layer: tuple(range(28)) for layer in range(1, 28)}
    plan = replace(plan_of({}), num_layers=28, num_heads=28, num_kv_heads=4, heads=heads)
    found = predict(plan, shape)
    assert [p.visual_tokens for p in found] == list(module.VISUAL) == [1024, 4096, 16384]
    assert found[2].kv_bytes == 28 * 4 * 16512 * 2 * 128 * 2
    shares = [p.kv_bytes_saved / p.kv_bytes for p in found]
    assert shares == sorted(shares) and 0.95 < shares[2] < 27 / 28
    assert 0.95 < found[2].attention_flops_saved / found[2].attention_flops < 27 / 28
