"""Plans and specs from anywhere: what is good survives a round trip, what is not is one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import FEATURES, PRESETS, QUERIES, RANK_BY, SCORES, Band, Pixels, Plan
from lostattn.surgery.spec import PatchSpec, read_spec, spec_text

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
LEVELS = st.floats(-1e4, 1e4)
POSITIVE = st.floats(0.001, 100)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = [f.name for f in fields(Plan)]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan that a model could run."""
    layers, groups, size = draw(st.integers(1, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    chosen = draw(st.lists(st.integers(0, layers - 1), unique=True, max_size=5))
    band = draw(st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from(RANK_BY)))
    some = st.lists(st.integers(0, groups * size - 1), unique=True, min_size=1).map(sorted).map(tuple)
    heads = {layer: () if band else draw(some) for layer in chosen}
    scores = draw(st.sampled_from([rule for rule in SCORES if rule != "fitted" or not band]))
    levelled = draw(st.booleans()) or scores == "fitted"
    features, weights = (), {}
    if scores == "fitted":
        features = tuple(draw(st.lists(st.sampled_from(FEATURES), unique=True, min_size=1)))
        vector = st.tuples(*[LEVELS] * len(features))
        weights = {layer: tuple(draw(vector) for _ in {h // size for h in found}) for layer, found in heads.items()}
    return Plan(
        family=draw(st.sampled_from(["llava", "qwen2_5_vl"])),
        mode=draw(st.sampled_from(["noise", "uniform"])),
        preset=draw(st.sampled_from(PRESETS)),
        scores=scores,
        queries=draw(st.sampled_from(QUERIES)),
        num_layers=layers,
        num_heads=groups * size,
        num_kv_heads=groups,
        heads=heads,
        band=Band(min(band[:2]), max(band[:2]), band[2]) if band else None,
        blend=draw(st.floats(0, 1)),
        seed=draw(st.integers(0, 2**63 - 1)),
        temperature=1.0 if features else draw(POSITIVE),
        features=features,
        weights=weights,
        levels={layer: tuple(draw(LEVELS) for _ in found) for layer, found in heads.items()}
        if levelled and not band
        else {},
        options=draw(st.dictionaries(st.sampled_from(["law", "pool"]), st.text(max_size=3))),
        pixels=draw(
            st.none() | st.builds(Pixels, st.tuples(FINITE, FINITE, FINITE), st.tuples(*[POSITIVE] * 3), POSITIVE)
        ),
    )


@given(plans())
def test_a_plan_survives_json(plan: Plan) -> None:
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan and again.to_json() == plan.to_json()
    assert all(0 <= group < plan.num_kv_heads for layer in plan.layers for group in plan.whole_groups(layer))


@given(plans(), st.text(min_size=1, max_size=8), JSON)
def test_unknown_keys_of_a_plan_are_refused(plan: Plan, key: str, value: Any) -> None:
    assume(key not in KEYS and key != "format")
    with pytest.raises(LostattnError) as caught:
        Plan.from_json({**plan.to_json(), key: value})
    assert key in str(caught.value)


@given(plans(), st.sampled_from([*KEYS, "format"]), JSON)
def test_any_value_makes_a_plan_or_one_sentence(plan: Plan, key: str, value: Any) -> None:
    try:
        Plan.from_json({**plan.to_json(), key: value})
    except LostattnError as error:
        assert str(error)


@pytest.mark.parametrize("name", KEYS)
@given(plan=plans(), value=JSON)
def test_a_wrong_kind_of_value_in_a_plan_is_named(name: str, plan: Plan, value: Any) -> None:
    raw = {**plan.to_json(), name: value}
    try:
        found = Plan.from_json(raw)
    except LostattnError as error:
        assert re.search(rf"{name}|layer|head|level|normalisation", str(error)) and "\n" not in str(error)
    else:
        kept = found.to_json()
        assert kept.get(name, value) == value or name in ("levels", "options", "band", "pixels") and not value


@given(JSON)
def test_anything_is_a_plan_or_one_sentence(value: Any) -> None:
    with pytest.raises(LostattnError):
        Plan.from_json(value)


@pytest.fixture(scope="module")
def spec_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spec") / "s.yaml"


@given(key=st.text(min_size=1, max_size=8), value=JSON)
def test_unknown_keys_of_a_spec_are_refused(spec_file: Path, key: str, value: Any) -> None:
    known = [f.name for f in fields(PatchSpec)]
    assume(key not in known)
    spec_file.write_text(yaml.safe_dump({"preset": "paper", key: value}), encoding="utf-8")
    with pytest.raises(LostattnError, match="unknown keys") as caught:
        read_spec(spec_file)
    assert key in str(caught.value)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


# what a value that is refused is called in the message, where that is not the field's own name
WRONG = {
    "preset": JSON.filter(lambda v: v not in PRESETS),
    "mode": JSON.filter(lambda v: not isinstance(v, str)),
    "layers": st.floats() | st.booleans() | st.lists(st.floats(), min_size=1, max_size=2),
    "heads": st.booleans() | st.integers() | st.floats() | st.lists(st.text(max_size=2), max_size=3),
    "rank_by": JSON.filter(lambda v: v is not None and v not in RANK_BY),
    "dynamic": JSON.filter(lambda v: v is not None and not isinstance(v, bool)),
    "calibration": JSON.filter(lambda v: v is not None and not isinstance(v, str)),
    "scores": JSON.filter(lambda v: v is not None and v not in SCORES),
    "queries": JSON.filter(lambda v: v is not None and v not in QUERIES),
    "blend": JSON.filter(lambda v: isinstance(v, bool) or not isinstance(v, int | float)),
    "seed": JSON.filter(lambda v: isinstance(v, bool) or not isinstance(v, int)),
    "temperature": JSON.filter(lambda v: isinstance(v, bool) or not isinstance(v, int | float)),
    "options": JSON.filter(lambda v: not isinstance(v, dict)),
    "keep_agreement": JSON.filter(lambda v: v is not None and not _is_share(v)),
    "kv_budget": JSON.filter(lambda v: v is not None and not _is_share(v)),
    "groups": st.booleans() | st.integers() | st.floats() | st.lists(st.integers(), max_size=2),
}


def test_every_field_of_a_spec_is_tried() -> None:
    assert set(WRONG) == {f.name for f in fields(PatchSpec)}


@pytest.mark.parametrize("name", WRONG)
@given(data=st.data())
def test_a_wrong_value_in_a_spec_is_named(name: str, data: st.DataObject) -> None:
    value = data.draw(WRONG[name])
    with pytest.raises(LostattnError) as caught:
        PatchSpec(**{name: value})
    assert name in str(caught.value) and "\n" not in str(caught.value)


@given(spec=st.builds(PatchSpec, seed=st.integers(0, 2**63 - 1), blend=st.floats(0, 1), temperature=POSITIVE))
def test_a_spec_survives_its_file(spec_file: Path, spec: PatchSpec) -> None:
    spec_file.write_text(spec_text(spec), encoding="utf-8")
    assert read_spec(spec_file) == spec
