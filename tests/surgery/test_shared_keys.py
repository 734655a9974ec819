"""Plans of decoders whose last layers read the keys and values of earlier ones."""

from __future__ import annotations

import pytest
import tiny
from lostattn.serving.byte_model import kv_bytes
from lostattn.serving.shape import model_shape
from lostattn.surgery.planner import make_plan
from lostattn.surgery.spec import PatchSpec

CONFIG = tiny.CONFIGS["gemma4-small"]().to_dict()  # layer 2 reads what layer 1 keeps


@pytest.mark.parametrize("layers, told, saved", [("1", 1, 0), ("2", 1, 0), ("1-2", 0, 1), ("0", 0, 1)])
def test_a_group_is_left_out_where_all_its_readers_patch_it(layers: str, told: int, saved: int) -> None:
    planned = make_plan(PatchSpec(mode="patch_complexity", layers=layers, heads="all"), CONFIG, None)
    found = [note for note in planned.notes if "read the same keys and values" in note]
    assert len(found) == told and all("layers 1-2" in note and "KV heads 0-1" in note for note in found)
    shape = model_shape(CONFIG)
    plain, ours = (kv_bytes(shape, plan, 20, 30) for plan in (None, planned.plan))
    assert (ours < plain) == bool(saved)


def test_scattered_heads_have_nothing_to_tell() -> None:
    planned = make_plan(PatchSpec(mode="patch_complexity", heads="2:0,3"), CONFIG, None)
    assert not [note for note in planned.notes if "keys and values" in note]
