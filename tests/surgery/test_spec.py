"""Specs: from YAML, from Python, and back to YAML."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hub_configs import QWEN
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import PRESETS, QUERIES, RANK_BY, SCORES
from lostattn.surgery.planner import make_plan
from lostattn.surgery.spec import PatchSpec, read_spec, spec_text
from lostattn.surgery.yaml_file import read_yaml, to_yaml

NUMBERS = st.sets(st.integers(0, 99)).map(sorted)
BANDS = st.tuples(st.floats(0, 1), st.floats(0, 1))
SPECS = st.builds(
    PatchSpec,
    preset=st.sampled_from(PRESETS),
    mode=st.sampled_from(["noise", "uniform", "patch_complexity"]),
    layers=st.none() | st.sampled_from(["all", "none", "1-27", 3]) | NUMBERS,
    heads=st.none()
    | st.sampled_from(["all", "0.3-0.6", "3:0,1;4:2"])
    | BANDS
    | st.dictionaries(st.integers(0, 9), NUMBERS),
    rank_by=st.none() | st.sampled_from(RANK_BY),
    dynamic=st.none() | st.booleans(),
    scores=st.none() | st.sampled_from(SCORES),
    queries=st.none() | st.sampled_from(QUERIES),
    blend=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
    temperature=st.floats(0.001, 100),
    options=st.dictionaries(st.sampled_from(["range", "pool"]), st.sampled_from(["unit", "max"])),
    keep_agreement=st.none() | st.floats(0, 1),
    kv_budget=st.none() | st.floats(0, 1),
    groups=st.none() | st.just("3:0,1;5:1") | st.dictionaries(st.integers(0, 9), NUMBERS),
)


def comparable(spec: PatchSpec) -> dict[str, Any]:
    """Fields, with lists for tuples: YAML does not tell them apart."""
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    return {k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}


@given(SPECS)
def test_text_and_back(spec: PatchSpec) -> None:
    again = PatchSpec(**yaml.safe_load(spec_text(spec)))
    assert comparable(again) == comparable(spec)


def test_the_text_says_what_was_wished_and_no_more() -> None:
    assert spec_text(PatchSpec()) == "preset: paper\nmode: patch_complexity\n"
    spec = PatchSpec(mode="noise", seed=7, calibration="/home/me/x.json", layers=np.array([1, 2]))
    assert yaml.safe_load(spec_text(spec)) == {
        "preset": "paper",
        "mode": "noise",
        "layers": [1, 2],
        "calibration": "x.json",
        "seed": 7,
    }


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("preset: reference\nlayers: 2\nheads: {3: [0, 1]}\nseed: null\ncalibration: x/c.json\n")
    spec = read_spec(path)
    assert (spec.preset, spec.layers, spec.heads, spec.seed) == ("reference", [2], {3: [0, 1]}, 0)
    assert spec.calibration == str(tmp_path / "x" / "c.json")
    path.write_text("calibration: /abs/c.json")
    assert read_spec(path).calibration == "/abs/c.json"


def test_what_is_read_once_stays() -> None:
    spec = PatchSpec(
        layers=(i for i in (3, 1)), heads={1: (h for h in (2, 0))}, blend=np.float32(0.5), seed=np.int64(3)
    )
    assert spec.layers == [1, 3] and spec.heads == {1: [0, 2]}
    assert type(spec.blend) is float and type(spec.seed) is int
    assert spec.with_changes(blend=None, seed=4).layers == [1, 3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name: value"),
        ("- a", "name: value"),
        ("5", "name: value"),
        ("a: b: c", "not YAML.*line 1"),
        ("\tx", "not YAML"),
        ("a: *b", "not YAML.*undefined alias"),
        ("!!python/object:os.system x", "not YAML"),
        ("seed: 2026-02-31", "whole number"),
        ("foo: 1\nbar: 2", "unknown keys bar, foo: known are preset, mode"),
        ("1: 2", "unknown keys 1"),
        ("preset: 3", "preset must be text"),
        ("preset: x", "paper, reference, efficient"),
        ("mode: [a]", "mode must be text"),
        ("scores: 1", "scores must be text"),
        ("scores: x", "raw, prob"),
        ("queries: []", "queries must be text"),
        ("rank_by: y", "mass, score"),
        ("calibration: 3", "calibration must be text"),
        ("blend: '0.5'", "blend must be a number"),
        ("blend: true", "blend must be a number"),
        ("seed: 1.5", "whole number"),
        ("seed: true", "whole number"),
        ("temperature: x", "temperature must be a number"),
        ("dynamic: 1", "true or false"),
        ("blend: 1" + "0" * 400, "too large"),
        ("options: 3", "mapping of names"),
        ("options: [a]", "mapping of names"),
        ("heads: 3", "a band"),
        ("heads: &a {3: *a}", "whole numbers"),
        ("layers: [1, x]", "whole numbers, not 'x'"),
        ("layers: &a [*a]", "whole numbers"),
        ("layers: true", "not True"),
        ("layers: 2.5", "not 2.5"),
        ("layers: {1: 2}", "whole numbers"),
        ("layers: 2026-01-01:", "not YAML"),
    ],
)
def test_yaml_that_cannot_be(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(LostattnError, match=says) as error:
        read_spec(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("blend: 1e-2", "blend", 0.01),
        ("blend: 5E-1", "blend", 0.5),
        ("blend: .5", "blend", 0.5),
        ("blend: 1.", "blend", 1.0),
        ("blend: +0.5", "blend", 0.5),
        ("blend: 1", "blend", 1.0),
        ("blend: -0.0", "blend", 0.0),
        ("seed: 010", "seed", 10),
        ("seed: 0x1F", "seed", 31),
        ("seed: 0o17", "seed", 15),
        ("seed: +7", "seed", 7),
        ("seed: ~", "seed", 0),
        ("seed:", "seed", 0),
        ("temperature: 1e2", "temperature", 100.0),
        ("dynamic: True", "dynamic", True),
        ("heads: 3:20", "heads", "3:20"),
        ("layers: 010", "layers", [10]),
        ("layers: 1-3", "layers", "1-3"),
        ("layers: none", "layers", "none"),
        ("layers: 1,2", "layers", "1,2"),
        ("heads: 0.3-0.6", "heads", "0.3-0.6"),
        ("options: {range: unit}", "options", {"range": "unit"}),
        ("heads: {01: [00, 1]}", "heads", {1: [0, 1]}),
    ],
)
def test_scalars_as_people_mean_them(tmp_path: Path, text: str, name: str, value: Any) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert getattr(read_spec(path), name) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nseed: 2", "'seed' stands there twice in line 2"),
        ("heads: {3: [0], 3: [1]}", "'3' stands there twice"),
        ("options: {range: unit, range: raw}", "twice"),
        ("seed: 1\n'seed': 2", "twice"),
        ("heads: {3: [0], 03: [1]}", "twice"),
        ("seed: 1_000", "not '1_000'"),
        ("seed: 1:30", "not '1:30'"),
        ("temperature: 1:30", "number, not '1:30'"),
        ("dynamic: yes", "true or false, not 'yes'"),
        ("dynamic: off", "not 'off'"),
        ("seed: 2026-01-01", "not '2026-01-01'"),
        ("blend: .nan", "blend must lie"),
        ("temperature: .inf", "temperature must be"),
        ("temperature: 1e-46", "float32"),
        ("temperature: 1e39", "float32"),
        ("temperature: -1", "temperature"),
        ("heads: 0-1", "0.0-1.0.*3:0,1"),
        ("heads: [0, 1]", r"\(0.0, 1.0\).*3:0,1"),
        ("heads: ''", "empty"),
        ("mode: ' '", "mode is empty"),
        ("calibration: ''", "calibration is empty"),
        ("seed: \u0663", "whole number"),
        ("layers: \u0663", "cannot read layers"),
        ("heads: [true, 1.0]", "a band"),
        ("heads: ['0.3', '0.6']", "a band"),
        ("<<: {seed: 1}", "unknown keys <<"),
    ],
)
def test_yaml_that_means_nothing_or_two_things(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LostattnError, match=says) as error:
        make_plan(read_spec(path), QWEN, None)
    assert "\n" not in str(error.value)


@given(st.text(max_size=8))
def test_texts_come_back_under_both_schemas(text: str) -> None:
    assert yaml.safe_load(to_yaml({"a": text})) == {"a": text}
    if text.isprintable():
        assert again({"a": text}) == {"a": text}


@pytest.mark.parametrize(
    "text", ["1e-2", "010", "yes", "1:30", "2026-01-01", "0x1F", "~", "", "null", "1_000", ".5", ".inf"]
)
def test_texts_that_look_like_something_else_are_quoted(text: str) -> None:
    assert yaml.safe_load(to_yaml({"a": text})) == again({"a": text}) == {"a": text}


def again(value: Any) -> Any:
    """Written and read by the same rules."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(to_yaml(value))
        file.flush()
        return read_yaml(file.name, "the file")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    for path, says in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "b.yaml", "not YAML"),
    ):
        with pytest.raises(LostattnError, match=says):
            read_spec(path)
