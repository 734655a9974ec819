"""Bytes by the model against counting slots one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Band, Plan
from lostattn.serving.byte_model import decode_bytes, kv_bytes, read_weight_bytes, saves, saving_groups
from lostattn.serving.shape import Shape
from safetensors.torch import save_file

SHAPE = Shape(family=None, layers=3, heads=4, kv_heads=2, head_dim=8, dtype_bytes=2)  # type: ignore[arg-type]


def plan_of(heads: dict[int, tuple[int, ...]], queries: str = "all", **changes: Any) -> Plan:
    return Plan("llava", "uniform", "paper", "raw", queries, 3, 4, 2, heads=heads, **changes)


@given(st.dictionaries(st.integers(0, 2), st.sets(st.integers(0, 3), min_size=1)), st.integers(0, 9), st.integers(1, 9))
def test_kv_bytes_count_slots(heads: dict[int, set[int]], text: int, visual: int) -> None:
    plan = plan_of({layer: tuple(sorted(h)) for layer, h in heads.items()})
    slots = 0
    for layer in range(3):
        for group in range(2):
            whole = {2 * group, 2 * group + 1} <= heads.get(layer, set())
            slots += text + (1 if whole else visual)
    assert kv_bytes(SHAPE, plan, text, visual) == slots * 2 * 8 * 2
    assert kv_bytes(SHAPE, None, text, visual) == 6 * (text + visual) * 2 * 8 * 2


@pytest.mark.parametrize(
    "plan",
    [
        plan_of({0: (0, 1)}, queries="last"),
        plan_of({0: (0, 1)}, blend=0.5),
        plan_of({0: ()}, band=Band(0, 1)),
        plan_of({}),
    ],
)
def test_what_saves_nothing(plan: Plan) -> None:
    assert not saves(plan) and saving_groups(plan) == 0
    assert kv_bytes(SHAPE, plan, 10, 100) == kv_bytes(SHAPE, None, 10, 100)


def test_rows_behind_the_image_keep_its_slots() -> None:
    """Rows inside the image still attend to each other, so its keys and values are needed until prefill ends."""
    plan = plan_of({0: (0, 1, 2, 3)}, queries="after_image")
    assert saves(plan) and saving_groups(plan) == 0


def test_a_step_reads_weights_once_and_every_cache() -> None:
    plan = plan_of(dict.fromkeys(range(3), (0, 1, 2, 3)))
    base, patched = (decode_bytes(SHAPE, p, 1000, 20, 100, batch=8) for p in (None, plan))
    assert (base.weights, base.kv) == (1000, 8 * 6 * 120 * 32) and base.total == base.weights + base.kv
    assert patched.kv == 8 * 6 * 21 * 32


@pytest.mark.parametrize("tied", [True, False])
def test_weights_that_a_step_reads(tmp_path: Path, tied: bool) -> None:
    tensors = {
        "model.visual.blocks.0.weight": torch.zeros(50, 3),
        "model.language_model.embed_tokens.weight": torch.zeros(10, 4),
        "model.language_model.layers.0.mlp.weight": torch.zeros(7, 4),
    } | ({} if tied else {"lm_head.weight": torch.zeros(10, 4)})
    save_file(tensors, tmp_path / "model.safetensors")
    assert read_weight_bytes(tmp_path, 2) == 2 * (7 * 4 + 10 * 4)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(LostattnError, match="no safetensors"):
        read_weight_bytes(tmp_path, 2)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(LostattnError, match="model.safetensors"):
        read_weight_bytes(tmp_path, 2)
