"""Plans of scores rule `fitted`: their JSON form, and what no model could run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches import LostattnError
from lostattn.patches.features import image_features
from lostattn.patches.plan import FEATURES, Plan


def fitted(features: tuple[str, ...] = FEATURES, weights: Any = None) -> Plan:
    """The plan of `tiny.make_plan` with a vector of ones in every KV head."""
    levels = {0: (0.5, -1.0, 2.0, 0.0), 1: (1.0, -2.0), 2: (0.3, 0.1)}
    ones = {layer: ((1.0,) * len(features),) * heads for layer, heads in ((0, 2), (1, 2), (2, 1))}
    return tiny.make_plan("qwen2_5_vl", scores="fitted", features=features, weights=weights or ones, levels=levels)


NUMBER = st.floats(-1e4, 1e4, allow_nan=False)


@st.composite
def plans(draw: Any) -> Plan:
    """Any static plan with weights."""
    kv_heads = draw(st.sampled_from([1, 2, 4]))
    heads = draw(st.dictionaries(st.integers(0, 5), st.sets(st.integers(0, 7), min_size=1), max_size=4))
    names = tuple(draw(st.lists(st.sampled_from(FEATURES), min_size=1, unique=True)))
    vector = st.tuples(*[NUMBER] * len(names))
    size = 8 // kv_heads
    weights = {x: tuple(draw(vector) for _ in {h // size for h in hs}) for x, hs in heads.items()}
    return Plan(
        "qwen2_5_vl",
        "uniform",
        "efficient",
        "fitted",
        "all",
        6,
        8,
        kv_heads,
        {x: tuple(sorted(hs)) for x, hs in heads.items()},
        features=names,
        weights=weights,
        levels={x: tuple(draw(NUMBER) for _ in hs) for x, hs in heads.items()},
    )


@given(plans())
def test_a_plan_and_back(plan: Plan) -> None:
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan and again.digest == plan.digest


def test_other_plans_are_written_as_before() -> None:
    raw = tiny.make_plan("qwen2_5_vl").to_json()
    assert not {"features", "weights"} & set(raw) and raw["format"] == 1


WEIGHTS = {0: ((1.0,), (2.0,)), 1: ((1.0,), (0.0,)), 2: ((1.0,),)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": ()}, "needs the names"),
        ({"features": ("row", "row")}, "needs the names"),
        ({"features": ("colour",)}, "unknown feature 'colour'"),
        ({"scores": "raw"}, "takes no features"),
        ({"temperature": 2.0}, "has no temperature"),
        ({"weights": {}}, "exactly the layers"),
        ({"levels": {}}, "exactly the layers"),
        ({"weights": WEIGHTS | {2: ((1.0,), (2.0,))}}, "one vector per KV head"),
        ({"weights": WEIGHTS | {2: ((1.0, 2.0),)}}, "each of 1"),
        ({"weights": WEIGHTS | {2: ((math.nan,),)}}, "finite"),
        ({"weights": WEIGHTS | {2: ((2e4,),)}}, "within 10000"),
    ],
    ids=str,
)
def test_plans_that_cannot_be(change: dict[str, Any], says: str) -> None:
    plan = fitted(("row",), WEIGHTS)
    with pytest.raises(LostattnError, match=says):
        replace(plan, **change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": {"0": [1.0]}}, "weights must be"),
        ({"features": "row"}, "features must be"),
        ({"weights": {"0": [["x"]]}}, "weights must be"),
    ],
)
def test_json_that_is_none(change: dict[str, Any], says: str) -> None:
    with pytest.raises(LostattnError, match=says):
        Plan.from_json(fitted().to_json() | change)


def test_features_need_places() -> None:
    with pytest.raises(LostattnError, match="kind='scores'"):
        image_features(torch.zeros(3), None, fitted())
