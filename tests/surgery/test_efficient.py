"""Preset `efficient`: measuring KV groups, the search, the frontier, and what a user meets on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches import load_patched
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Plan
from lostattn.surgery import patch_checkpoint
from lostattn.surgery.calibration import Calibration
from lostattn.surgery.chat import Chat
from lostattn.surgery.demo.builtin import builtin_examples
from lostattn.surgery.efficient import harm as harm_module
from lostattn.surgery.efficient import search as search_module
from lostattn.surgery.efficient.frontier import Frontier, Harm, Step, frontier_rows
from lostattn.surgery.efficient.harm import harm_rows, mean_harm, original_answer
from lostattn.surgery.efficient.search import POINTS, _measurements, measure_groups, search
from lostattn.surgery.efficient.swap import groups_of, restrict, swapping
from lostattn.surgery.planner import make_plan
from lostattn.surgery.spec import PatchSpec

SETTINGS = {
    "mode": "uniform",
    "options": {},
    "scores": "log",
    "queries": "all",
    "blend": 1.0,
    "seed": 0,
    "temperature": 1.0,
}


@pytest.fixture(scope="module")
def whole(demo: Path, demo_config: dict[str, Any], demo_calibration: Calibration) -> Plan:
    """Every KV group of the demo model."""
    spec = PatchSpec(preset="efficient", mode="uniform", layers="all", heads="all")
    return make_plan(spec, demo_config, demo, lambda: demo_calibration).plan


@pytest.fixture
def chat(demo: Path) -> Chat:
    return Chat.load(demo)


def logits(chat: Chat, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return chat.model(**inputs, use_cache=False).logits


def test_a_model_is_plain_before_and_after(chat: Chat, whole: Plan) -> None:
    example = builtin_examples(1)[0]
    inputs = chat.encode(example.open(), example.question)
    wanted, kinds = logits(chat, inputs), (type(chat.model), type(chat.model.model))
    with swapping(chat.model, whole) as swap:
        assert not torch.allclose(logits(chat, inputs), wanted, atol=1e-2)
        swap(restrict(whole, []))
        assert torch.equal(logits(chat, inputs), wanted)
    assert torch.equal(logits(chat, inputs), wanted) and (type(chat.model), type(chat.model.model)) == kinds
    assert not hasattr(chat.model, "sap_plan") and not hasattr(
        chat.model.model.language_model.layers[0].self_attn, "sap_layer"
    )
    with pytest.raises(RuntimeError, match="cut"), swapping(chat.model, whole):
        raise RuntimeError("cut")
    assert torch.equal(logits(chat, inputs), wanted)


def test_harm_is_that_of_the_patched_checkpoint(
    chat: Chat, whole: Plan, demo: Path, tmp_path: Path, demo_calibration: Calibration
) -> None:
    """KL and kept answers against a checkpoint that was written, loaded and asked in the ordinary way."""
    (tmp_path / "c.json").write_text(json.dumps(demo_calibration.to_json()))
    wanted = {"preset": "efficient", "mode": "uniform", "groups": {0: [1], 4: [0]}, "calibration": tmp_path / "c.json"}
    patch_checkpoint(demo, tmp_path / "p", **wanted)  # type: ignore[arg-type]
    patched = load_patched(tmp_path / "p")
    plan = restrict(whole, [(0, 1), (4, 0)])
    assert {k: torch.tensor(v) for k, v in patched.sap_plan.levels.items()}.keys() == plan.levels.keys()
    rows, hand = [], []
    for example in builtin_examples(6):
        answer = original_answer(chat, example, 4)
        with swapping(chat.model, plan) as swap:
            rows += harm_rows(chat, swap, [plan], example, answer)
        inputs = chat.encode(example.open(), example.question)
        new = patched.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer[:-1]], dtype=torch.long)], 1)
        more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        more["mm_token_type_ids"] = (ids == chat.model.config.image_token_id).int()
        with torch.no_grad():
            p, q = (
                m(**{**inputs, **more}).logits[0, -len(answer) :].double().log_softmax(-1)
                for m in (chat.model, patched)
            )
        hand.append(((p.exp() * (p - q)).sum(-1).mean().item(), new == answer))
    assert [r[0] for r in rows] == pytest.approx([h[0] for h in hand], rel=1e-3, abs=1e-6)
    assert [bool(r[1]) for r in rows] == [h[1] for h in hand]
    assert max(r[0] for r in rows) > 0.1 and not all(h[1] for h in hand), "layer 0 matters"


def test_means() -> None:
    found = mean_harm([[0.5, 1.0, 4.0, 4.0], [1.5, 0.0, 1.0, 2.0]])
    assert found == Harm(1.0, 0.5, pytest.approx(5 / 6))


class Toy:
    """Groups with a cost each; pairs that stand in for one another cost much when both are gone."""

    def __init__(self, costs: dict[tuple[int, int], float], pairs: Sequence[Sequence[tuple[int, int]]] = ()) -> None:
        self.costs, self.pairs, self.calls = costs, pairs, 0

    def __call__(self, choices: Sequence[Sequence[tuple[int, int]]]) -> list[Harm]:
        self.calls += len(choices)
        kl = [sum(self.costs[g] for g in c) + 9.0 * sum(set(p) <= set(c) for p in self.pairs) for c in choices]
        return [Harm(x, 1 / (1 + x), 1 / (1 + x)) for x in kl]

    def alone(self) -> dict[tuple[int, int], Harm]:
        return dict(zip(self.costs, self([[g] for g in self.costs]), strict=True))


def test_the_search_sees_what_single_effects_hide() -> None:
    """Two groups that do nothing alone, but must not both go: the second one goes last."""
    costs = {(0, 0): 0.0, (0, 1): 0.001, (1, 0): 0.1, (1, 1): 0.2, (2, 0): 0.3, (2, 1): 0.4}
    toy = Toy(costs, [[(0, 0), (0, 1)]])
    steps = search(toy, toy.alone(), width=2)
    assert [s.groups for s in steps] == [((0, 0),), ((1, 0),), ((1, 1),), ((2, 0),), ((2, 1),), ((0, 1),)]
    gone: list[tuple[int, int]] = []
    for step in steps:
        gone += step.groups
        assert step.harm == Toy(costs, toy.pairs)([gone])[0], "the joint harm, not a sum"


@given(
    st.dictionaries(st.tuples(st.integers(0, 30), st.integers(0, 3)), st.floats(0, 9), min_size=1, max_size=70),
    st.integers(1, 5),
)
def test_every_group_goes_once(costs: dict[tuple[int, int], float], width: int) -> None:
    toy = Toy(costs)
    steps = search(toy, toy.alone(), width)
    found = Frontier(SETTINGS, len(costs), 1, 1, toy.alone(), tuple(steps))
    toy.calls -= len(costs)
    assert found.chosen(len(steps)) == tuple(sorted(costs)) and len(steps) <= POINTS
    assert toy.calls == _measurements(len(costs), width), "progress is told truly"
    joint = [sum(costs[g] for g in found.chosen(i)) for i in range(1, len(steps) + 1)]
    assert [s.harm.kl for s in steps] == pytest.approx(joint)
    assert Frontier.from_json(json.loads(json.dumps(found.to_json()))).chosen(len(steps)) == found.chosen(len(steps))


def test_an_exchange_mends_what_greedy_cannot() -> None:
    """The group that is best alone stands in the way of two others: greedy keeps it, an exchange gives it back."""
    costs = {(0, 0): 0.0, (1, 0): 0.1, (2, 0): 0.1, (3, 0): 9.5}
    toy = Toy(costs, [[(0, 0), (1, 0)], [(0, 0), (2, 0)]])
    steps = search(toy, toy.alone(), width=3)
    found = Frontier(SETTINGS, 4, 1, 1, toy.alone(), tuple(steps))
    assert found.chosen(1) == ((0, 0),) and found.chosen(2) == ((1, 0), (2, 0)) and steps[1].back == ((0, 0),)
    assert steps[1].harm == toy([found.chosen(2)])[0]


HARMS = st.builds(Harm, st.floats(0, 9), st.floats(0, 1), st.floats(0, 1))


@st.composite
def frontiers(draw: st.DrawFn) -> Frontier:
    groups = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), unique=True, min_size=1, max_size=8))
    alone = {g: draw(HARMS) for g in groups}
    steps = tuple(Step((g,), draw(HARMS)) for g in groups) if draw(st.booleans()) else ()
    return Frontier(SETTINGS, 40, draw(st.integers(1, 999)), 16, alone, steps)


@given(frontiers())
def test_a_frontier_survives_json(frontier: Frontier) -> None:
    raw = json.loads(json.dumps(frontier.to_json()))
    assert Frontier.from_json(raw).to_json() == frontier.to_json()
    assert len(frontier_rows(frontier, 1)) == len(frontier.steps)


@given(frontiers(), st.none() | st.floats(0, 1), st.none() | st.floats(0, 1))
def test_a_choice_keeps_what_was_asked(frontier: Frontier, keep: float | None, budget: float | None) -> None:
    meets = [
        i
        for i, s in enumerate(frontier.steps, 1)
        if (keep is None or s.harm.agreement >= keep) and (budget is None or 1 - frontier.saved(i) <= budget + 1e-9)
    ]
    try:
        count = frontier.choose(keep, budget)
    except LostattnError as error:
        assert not meets and "\n" not in str(error)
    else:
        assert count == (meets[-1] if budget is None else meets[0])


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 3},
        {"alone": [{}]},
        {"settings": {}},
        {"kv_groups": 0},
        {"samples": "x"},
        {"more": 1},
        {"alone": None},
        {"steps": [{"groups": [[7, 7]], "kl": 0, "agreement": 1, "tokens": 1}]},
        {"steps": [{"groups": [], "kl": 0, "agreement": 1, "tokens": 1}]},
        {"steps": [{"groups": [[0, 0]], "back": [[0, 1]], "kl": 0, "agreement": 1, "tokens": 1}]},
        {"alone": [{"group": [0, 0], "kl": -1, "agreement": 1, "tokens": 1}]},
        {"alone": [{"group": [0, 0], "kl": float("nan"), "agreement": 1, "tokens": 1}]},
        {"alone": [{"group": [0], "kl": 0, "agreement": 1, "tokens": 1}]},
        {"alone": [{"group": [0, 0], "kl": 0, "agreement": 2, "tokens": 1}]},
    ],
    ids=str,
)
def test_damaged_frontiers(change: dict[str, Any], demo_calibration: Calibration, tmp_path: Path) -> None:
    good = Frontier(SETTINGS, 12, 5, 16, {(0, 0): Harm(0, 1, 1)}, (Step(((0, 0),), Harm(0, 1, 1)),))
    raw = {**replace(demo_calibration, frontier=good).to_json()}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(raw))
    assert Calibration.read(path).frontier == good
    path.write_text(json.dumps({**raw, "frontier": {**raw["frontier"], **change}}))
    with pytest.raises(LostattnError, match="frontier in the calibration is damaged"):
        Calibration.read(path)


class Cut(Exception):
    pass


def test_an_interrupted_search_goes_on(
    chat: Chat, whole: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = restrict(whole, [(0, 0), (0, 1), (3, 1)])
    told: list[tuple[int, int]] = []
    run: Callable[..., Frontier] = lambda **more: measure_groups(chat, some, builtin_examples(3), width=2, **more)  # noqa: E731
    wanted = run(progress=lambda *x: told.append(x))
    assert told[-1][0] == told[-1][1] and told == sorted(told)
    assert len(wanted.steps) == 3 and sorted(wanted.chosen(3)) == groups_of(some)

    def cut(done: int, total: int) -> None:
        if done > total / 2:
            raise Cut

    partial = tmp_path / "p"
    with pytest.raises(Cut):
        run(partial=partial, progress=cut)
    kept = partial.read_text()
    counted: list[int] = []
    measure = harm_module.harm_rows
    monkeypatch.setattr(search_module, "harm_rows", lambda *a: counted.append(1) or measure(*a))
    assert run(partial=partial).to_json() == wanted.to_json() and partial.read_text().startswith(kept)
    assert 0 < len(counted) < 3 * 4
    with pytest.raises(LostattnError, match="patched: give its original"):
        measure_groups(Chat(chat.model, chat.processor, True), some, builtin_examples(1))


class TinyChat:
    """A tiny model with ready-made inputs in place of pictures."""

    def __init__(self, name: str) -> None:
        self.model, self.inputs, self.patched = tiny.make_plain(name), tiny.make_inputs(name), False

    def encode(self, image: Any, question: str) -> dict[str, torch.Tensor]:
        return dict(self.inputs)


@pytest.mark.parametrize("mode", ["noise", "vision_attention", "drop"])
@pytest.mark.parametrize("name", tiny.ONE_PER_FAMILY)
def test_every_family_is_measured_as_it_would_be_patched(name: str, mode: str) -> None:
    """A plain tiny model that takes plans in turn, against models built with them."""
    chat, example, answer = TinyChat(name), builtin_examples(1)[0], [7, 8, 9]
    whole = tiny.make_plan(name, mode, heads={layer: range(tiny.HEADS) for layer in range(tiny.LAYERS)})
    whole = replace(whole, heads={layer: tuple(heads) for layer, heads in whole.heads.items()})
    a, b, c = whole.layers
    plans = [restrict(whole, groups) for groups in ([(a, 1)], [(b, 0), (c, 1)], groups_of(whole))]
    with swapping(chat.model, whole) as swap:
        rows = harm_rows(chat, swap, plans, example, answer)  # type: ignore[arg-type]
    ids = torch.cat([chat.inputs["input_ids"], torch.tensor([answer[:-1]])], 1)
    inputs = {**chat.inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = (ids == tiny.IMAGE).int()
    plain = tiny.make_plain(name)
    with torch.no_grad():
        p = plain(**inputs).logits[0, -3:].double().log_softmax(-1)
        assert torch.equal(chat.model(**inputs).logits, plain(**inputs).logits), "plain again"
        for plan, row in zip(plans, rows, strict=True):
            q = tiny.make_patched(plain, plan)(**inputs).logits[0, -3:].double().log_softmax(-1)
            kl = (p.exp() * (p - q)).sum(-1).mean().item()
            assert row[0] == pytest.approx(kl, rel=1e-3) and kl > 1e-4
            assert row[2] == int((q.argmax(-1) == p.argmax(-1)).sum()) and row[1] == (row[2] == 3) and row[3] == 3
