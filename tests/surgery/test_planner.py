"""From options and a config to an exact plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_configs import LLAVA, ONEVISION, QWEN
from hypothesis import given, settings
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Band, Plan
from lostattn.serving.shape import model_shape
from lostattn.surgery.calibration import Calibration
from lostattn.surgery.planner import make_plan
from lostattn.surgery.spec import PatchSpec


def statistics(config: dict[str, Any], seed: int = 0) -> Calibration:
    """Random statistics of that model."""
    shape = model_shape(config)
    g = torch.Generator().manual_seed(seed)
    tables = [torch.randn(shape.layers, shape.heads, generator=g, dtype=torch.float64).tolist() for _ in range(4)]
    return Calibration(shape.family.name, shape.layers, shape.heads, 5, "random", *tables)


def plan_of(config: dict[str, Any], calibrate: Callable[[], Calibration] | None = None, **options: Any) -> Plan:
    return make_plan(PatchSpec(**options), config, None, calibrate).plan


def by_hand(values: list[float], low: float, high: float) -> tuple[int, ...]:
    """Heads between two quantiles, both ends included, without torch's quantile."""
    ordered = sorted(values)

    def quantile(q: float) -> float:
        place = q * (len(ordered) - 1)
        i = min(int(place), len(ordered) - 2)
        return ordered[i] + (place - i) * (ordered[i + 1] - ordered[i])

    margin = 1e-12
    return tuple(h for h, v in enumerate(values) if quantile(low) - margin <= v <= quantile(high) + margin)


@pytest.mark.parametrize(
    ("config", "shape"),
    [(QWEN, (28, 28, 4, 128, 2)), (LLAVA, (32, 32, 32, 128, 2)), (ONEVISION, (28, 28, 4, 128, 2))],
    ids=["qwen", "llava", "onevision"],
)
def test_published_configs(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    found = model_shape(config)
    assert (found.layers, found.heads, found.kv_heads, found.head_dim, found.dtype_bytes) == shape


@pytest.mark.parametrize(
    ("config", "layers", "band"),
    [(QWEN, range(1, 28), (0.3, 0.6)), (LLAVA, range(18, 24), (0.2, 0.8)), (ONEVISION, range(21, 28), (0.3, 0.6))],
    ids=["qwen", "llava", "onevision"],
)
def test_defaults_of_the_families(config: dict[str, Any], layers: range, band: tuple[float, float]) -> None:
    measured = statistics(config)
    found = make_plan(PatchSpec(), config, None, lambda: measured)
    assert found.plan.layers == tuple(layers) and not any("clipped" in n for n in found.notes)
    assert (found.plan.scores, found.plan.queries, found.plan.band) == ("raw", "all", None)
    for layer in layers:
        assert found.plan.heads[layer] == by_hand(list(measured.mass[layer]), *band)
    dynamic = plan_of(config, dynamic=True)
    assert dynamic.band == Band(*band, "mass") and dynamic.layers == tuple(layers)


def test_presets() -> None:
    reference = plan_of(QWEN, preset="reference")
    assert reference.band == Band(0.3, 0.6, "score") and (reference.scores, reference.queries) == ("prob", "last")
    assert reference.options == {"range": "unit"} and plan_of(QWEN, heads="all").options == {"range": "own"}
    assert plan_of(LLAVA, preset="reference").scores == plan_of(ONEVISION, preset="reference").scores == "prob_rescaled"
    measured = statistics(QWEN)
    static = plan_of(QWEN, lambda: measured, preset="reference", dynamic=False)
    assert static.band is None and static.heads[5] == by_hand(list(measured.score[5]), 0.3, 0.6)
    efficient = plan_of(QWEN, lambda: measured, preset="efficient")
    assert (efficient.scores, efficient.queries, efficient.band) == ("log", "all", None)
    means = torch.tensor(measured.mass[5]).view(4, 7).mean(1).tolist()
    groups = by_hand(means, 0.3, 0.6)
    assert efficient.whole_groups(5) == groups and len(efficient.heads[5]) == 7 * len(groups)
    assert efficient.levels[5] == tuple(measured.level[5][h] for h in efficient.heads[5])


def test_wishes_win_over_presets() -> None:
    found = plan_of(
        QWEN,
        preset="reference",
        scores="raw",
        queries="after_image",
        rank_by="mass",
        heads=(0, 0.5),
        layers="3,5",
        blend=0.25,
        seed=9,
        mode="noise",
        options={"law": "normal"},
    )
    assert found.band == Band(0, 0.5, "mass") and found.layers == (3, 5)
    assert (found.scores, found.queries, found.blend, found.seed) == ("raw", "after_image", 0.25, 9)
    assert found.options == {"law": "normal"}


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 50), st.sampled_from(["mass", "score"]))
@settings(max_examples=40)
def test_bands_include_both_ends(a: int, b: int, seed: int, rank_by: str) -> None:
    low, high = (x / 100 for x in sorted((a, b)))
    measured = statistics(LLAVA, seed)
    wanted = {layer: by_hand(list(measured.ranking(rank_by)[layer]), low, high) for layer in (3, 4)}
    wanted = {layer: heads for layer, heads in wanted.items() if heads}
    if wanted:
        assert plan_of(LLAVA, lambda: measured, heads=(low, high), layers=[3, 4], rank_by=rank_by).heads == wanted
    else:
        with pytest.raises(LostattnError, match="holds no head in layers 3-4: widen it"):
            plan_of(LLAVA, lambda: measured, heads=(low, high), layers=[3, 4], rank_by=rank_by)


def test_ends_of_a_band_by_example() -> None:
    rows = [[float(h) for h in range(5)]] * 32
    measured = replace(statistics(LLAVA), num_heads=32, mass=[[float(h) for h in range(32)]] * 32)
    found = plan_of(LLAVA, lambda: measured, heads=(0.0, 1.0), layers=0)
    assert found.heads == {0: tuple(range(32))}
    assert plan_of(LLAVA, lambda: measured, heads=(0.0, 0.0), layers=0).heads == {0: (0,)}
    assert plan_of(LLAVA, lambda: measured, heads=(1.0, 1.0), layers=0).heads == {0: (31,)}
    assert plan_of(LLAVA, lambda: measured, heads=(10 / 31, 12 / 31), layers=0).heads[0][1:2] == (11,)
    with pytest.raises(LostattnError, match="calibration is of a llava with 32 layers and 5 heads"):
        plan_of(LLAVA, lambda: replace(measured, num_heads=5, mass=rows), heads=(0.0, 1.0))


def test_a_layer_without_heads_is_told(demo_config: dict[str, Any]) -> None:
    measured = replace(statistics(demo_config), mass=[[0.0, 0.0, 0.0, 0.0], *[[0.0, 1.0, 2.0, 3.0]] * 5])
    found = make_plan(PatchSpec(heads=(0.4, 0.6), layers="0-1"), demo_config, None, lambda: measured)
    assert found.plan.heads == {0: (0, 1, 2, 3)}
    assert any("holds no head in layers 1: they stay" in note for note in found.notes)


def test_clipping_is_told(demo_config: dict[str, Any]) -> None:
    found = make_plan(PatchSpec(heads="all"), demo_config, None)
    assert found.plan.layers == (1, 2, 3, 4, 5, 6, 7)
    assert any("clipped to 1-7: the model has 8 layers" in note for note in found.notes)
    short = json.loads(json.dumps(LLAVA))
    short["text_config"]["num_hidden_layers"] = 4
    with pytest.raises(LostattnError, match="default layers 18-23 .* last layer 3: choose with --layers"):
        plan_of(short, heads="all")


def test_efficient_takes_whole_groups_only() -> None:
    whole = plan_of(QWEN, lambda: statistics(QWEN), preset="efficient", heads={3: range(7, 14)})
    assert whole.whole_groups(3) == (1,)
    for heads in ({3: [0]}, {3: range(8)}, {3: [*range(6), 7]}):
        with pytest.raises(LostattnError, match="whole KV groups of 7 heads.*layer 3"):
            plan_of(QWEN, lambda: statistics(QWEN), preset="efficient", heads=heads)


def test_efficient_with_few_groups_takes_the_nearest(demo_config: dict[str, Any]) -> None:
    """Two KV groups lie at the quantiles 0 and 1: no ordinary band holds either."""
    measured = replace(statistics(demo_config), mass=[[3.0, 3.0, 1.0, 1.0]] * 6)
    found = plan_of(demo_config, lambda: measured, preset="efficient", layers=2)
    assert found.heads == {2: (2, 3)}
    assert plan_of(demo_config, lambda: measured, preset="efficient", layers=2, heads=(0.6, 0.9)).heads == {2: (0, 1)}


def no_measuring() -> Calibration:
    raise AssertionError("measured, although no measurement was needed")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": [28]}, "layers 0-27"),
        ({"heads": {3: [28]}}, "within 0-27"),
        ({"heads": {28: [1]}}, "layers 0-27"),
        ({"heads": {3: [-1]}}, "within 0-27"),
        ({"heads": {3: [28]}, "scores": "log"}, "within 0-27"),
        ({"heads": {3: [28]}, "preset": "efficient"}, "within 0-27"),
        ({"heads": (0.6, 0.3)}, "0 <= low <= high <= 1"),
        ({"heads": (float("nan"), 1)}, "0 <= low"),
        ({"heads": (0, 2.0)}, "0 <="),
        ({"heads": {3: [1]}, "layers": [4]}, "--layers names 4 but --heads names 3"),
        ({"blend": 1.5}, r"blend must lie in \[0, 1\]"),
        ({"blend": float("nan")}, "blend"),
        ({"seed": -1}, "seed must lie"),
        ({"temperature": 0}, "temperature"),
        ({"mode": "x"}, "unknown mode 'x': choose one of"),
        ({"options": {"pool": "max"}}, "no option pool=max"),
        ({"options": {"range": 3}}, "no option range=3"),
        ({"dynamic": True, "heads": "all"}, "--dynamic chooses"),
        ({"dynamic": True, "preset": "efficient"}, "efficient"),
        ({"dynamic": True, "scores": "log"}, "levels of known heads"),
    ],
)
def test_wishes_that_cannot_be_are_refused_before_measuring(options: dict[str, Any], says: str) -> None:
    with pytest.raises(LostattnError, match=says):
        plan_of(QWEN, no_measuring, **options)


def test_no_measuring_without_need() -> None:
    assert (
        plan_of(QWEN, no_measuring, layers=[]).heads
        == plan_of(QWEN, no_measuring, layers="none", dynamic=True).heads
        == {}
    )
    assert plan_of(QWEN, no_measuring, heads={}).inert and plan_of(QWEN, no_measuring, heads={3: []}).inert
    assert plan_of(QWEN, no_measuring, heads="all", layers=3).heads == {3: tuple(range(28))}
    assert plan_of(QWEN, no_measuring, heads={4: [2], 3: [5, 1]}, layers=[3, 4]).heads == {3: (1, 5), 4: (2,)}
    with pytest.raises(LostattnError, match="lostattn calibrate"):
        plan_of(QWEN)


def test_useless_wishes_are_told() -> None:
    spec = PatchSpec(heads="all", rank_by="mass", calibration="none.json", temperature=2, seed=3)
    notes = " ".join(make_plan(spec, QWEN, None).notes)
    assert all(word in notes for word in ("--rank-by", "--calibration", "--temperature", "--seed"))
    used = PatchSpec(heads=(0.0, 1.0), rank_by="mass", temperature=2, seed=3, mode="noise", scores="prob")
    assert "changes nothing" not in " ".join(make_plan(used, QWEN, None, lambda: statistics(QWEN)).notes)


def test_plans_survive_json(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [1, 1, 1]})
    )
    for options in ({"preset": "reference"}, {"preset": "efficient"}, {"heads": {5: [1], 3: [0, 2]}}, {"layers": []}):
        found = make_plan(PatchSpec(**options), QWEN, tmp_path, lambda: statistics(QWEN)).plan
        assert found.pixels is not None and found.pixels.mean == (0.5, 0.4, 0.3)
        assert Plan.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "bert"}, "families are .*llava, llava_next"),
        ({"num_hidden_layers": "x"}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "cannot be read as qwen2_5_vl"),
        ({"num_key_value_heads": 3}, "28 heads share 3 KV heads"),
        ({"num_attention_heads": -4}, "-4 heads"),
        ({"vision_config": 5}, "vision_config"),
        ({"num_key_value_heads": -1}, "KV"),
    ],
)
def test_configs_that_cannot_be(change: dict[str, Any], says: str) -> None:
    with pytest.raises(LostattnError, match=says) as error:
        model_shape({**QWEN, **change})
    assert "\n" not in str(error.value)
    with pytest.raises(LostattnError, match="does not cover the text model 'gpt2'"):
        model_shape({**LLAVA, "text_config": {"model_type": "gpt2"}})
