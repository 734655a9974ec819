"""Fitted priors: what gradient descent finds, interruptions, the calibration file, the command line, every door."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Plan
from lostattn.serving.data import Example
from lostattn.serving.resume import Progress
from lostattn.surgery.calibration import Calibration
from lostattn.surgery.chat import Chat
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.demo.builtin import builtin_examples
from lostattn.surgery.efficient.fit import (
    FitSettings,
    Fitter,
    fit_groups,
    frozen,
    numbers_of,
    pieces,
    plan_of,
    start_of,
)
from lostattn.surgery.efficient.fits import Fit, fit_for
from lostattn.surgery.efficient.harm import harm_rows, mean_harm, original_answer, plain_of
from lostattn.surgery.efficient.search import Journal, every_group
from lostattn.surgery.efficient.swap import restrict, swapping
from PIL import Image

PICTURE = Image.new("RGB", (4, 4))


class TinyChat:
    """A tiny model whose questions are seeds of ready-made inputs."""

    patched = False

    def __init__(self, name: str) -> None:
        self.model, self.name = tiny.make_plain(name), name

    def encode(self, image: Any, question: str) -> dict[str, torch.Tensor]:
        return tiny.make_inputs(self.name, seed=int(question))


def questions(seeds: Sequence[int]) -> list[Example]:
    return [Example(seed, PICTURE, str(seed)) for seed in seeds]


def whole_plan(name: str) -> Plan:
    """All heads of all layers, uniform, every level log 12."""
    heads = {layer: tuple(range(tiny.HEADS)) for layer in range(tiny.LAYERS)}
    levels = dict.fromkeys(heads, (2.5,) * tiny.HEADS)
    return tiny.make_plan(name, "patch_complexity", heads=heads, scores="log", levels=levels, preset="efficient")


def fitter(
    chat: Any, swap: Any, start: Plan, secret: Plan, examples: Sequence[Example], settings: FitSettings
) -> Fitter:
    """A fit whose original is a plan that fitted scores can express, instead of the plain model."""
    journal = Journal(Progress(None, ""), lambda done, total: None, 1)
    return Fitter(chat, swap, start, secret, examples, settings, journal)


def secret_plan(start: Plan) -> Plan:
    theta = numbers_of(start) + torch.randn(len(numbers_of(start)), generator=torch.Generator().manual_seed(3)) * 0.8
    return plan_of(start, theta)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava-qwen2"])
def test_a_prior_that_is_there_is_found(name: str) -> None:
    """The original is itself a fitted plan with secret numbers: the KL to it falls to a small part, on new questions too."""
    name = next(n for n in tiny.CONFIGS if n.startswith(name.split("-")[0]))
    chat, plan = TinyChat(name), whole_plan(name)
    start = start_of(plan)
    secret, settings = secret_plan(start), FitSettings(rounds=6, batch=4, rate=0.1, max_new_tokens=3)
    with swapping(chat.model, start) as swap, frozen(chat.model):
        states = fitter(chat, swap, start, secret, questions(range(24)), settings).run()
        best = min(states, key=lambda s: s["held_out"][0])
        found, zero = plan_of(start, torch.tensor(best["theta"])), plan_of(start, numbers_of(start) * 0)
        rows: dict[str, list[Any]] = {"fitted": [], "levels": [], "zero": []}
        for example in questions(range(700, 710)):
            for kind, one in (("fitted", found), ("levels", start), ("zero", zero)):
                rows[kind] += harm_rows(chat, swap, [one], example, [7, 8, 9], secret)  # type: ignore[arg-type]
    kl = {kind: mean_harm(some).kl for kind, some in rows.items()}
    assert states[0]["held_out"][0] > 0.05 and best["held_out"][0] < 0.25 * states[0]["held_out"][0]
    assert kl["fitted"] < 0.3 * kl["levels"] and kl["fitted"] < 0.3 * kl["zero"], kl


def test_gradients_are_those_of_the_kl() -> None:
    """Of every tenth number, against differences of the loss itself in float64."""
    chat = TinyChat("qwen2_5_vl")
    chat.model.double()
    start = start_of(whole_plan("qwen2_5_vl"))
    example = questions([5])[0]
    with swapping(chat.model, start) as swap, frozen(chat.model):
        one = fitter(chat, swap, start, secret_plan(start), [example], FitSettings())
        theta, pair = numbers_of(start).double().requires_grad_(), (example, [7, 8])
        (got,) = torch.autograd.grad(one.loss(theta, pair), theta)
        for i in range(0, len(theta), 10):
            step = 2e-3 * torch.eye(len(theta))[i].double()  # the logits are compared in float32
            more, less = (one.loss(theta.detach() + sign * step, pair) for sign in (1, -1))
            wanted = float(more - less) / 4e-3
            assert float(got[i]) == pytest.approx(wanted, abs=5e-4, rel=0.02)
    assert got.abs().max() > 1e-3
    assert all(p.requires_grad and p.grad is None for p in chat.model.parameters())


def test_numbers_as_a_vector_and_back() -> None:
    start = start_of(restrict(whole_plan("qwen2_5_vl"), [(0, 1), (2, 0)]))
    theta = torch.arange(len(numbers_of(start))).float()
    assert torch.equal(numbers_of(plan_of(start, theta)), theta) and plan_of(start, numbers_of(start)) == start
    assert [(layer, tuple(w.shape), len(b)) for layer, w, b in pieces(start, theta)] == [(0, (1, 6), 2), (2, (1, 6), 2)]


def test_the_start_is_uniform_at_the_levels() -> None:
    """The first plan of a fit is the uniform prior of rule `log`, so nothing is lost that was calibrated."""
    chat, name = TinyChat("qwen2_5_vl"), "qwen2_5_vl"
    plan = replace(whole_plan(name), mode="uniform", options={})
    inputs = chat.encode(None, "1")
    with swapping(chat.model, plan) as swap, torch.no_grad():
        wanted = chat.model(**inputs).logits
        swap(start_of(plan))
        assert torch.allclose(chat.model(**inputs).logits, wanted, atol=1e-4)


# -- on the demo model


@pytest.fixture(scope="module")
def plan(demo: Path, demo_calibration: Calibration) -> Plan:
    """Ten of twelve KV groups of the demo model."""
    whole = every_group(resolve_source(demo), demo_calibration, "patch_complexity")
    return restrict(whole, [(layer, g) for layer in range(1, 6) for g in (0, 1)])


@pytest.fixture
def chat(demo: Path) -> Chat:
    return Chat.load(demo)


def test_the_model_comes_nearer_to_the_original(chat: Chat, plan: Plan) -> None:
    """Held-out KL of the demo model: below that of score 0, and of the measured levels."""
    inputs = chat.encode(PICTURE.resize((56, 56)), "Is there a 7 in the image?")
    with torch.no_grad():
        before = chat.model(**inputs).logits
    fit = fit_groups(chat, plan, builtin_examples(128), FitSettings(rounds=5, batch=4, rate=0.1, max_new_tokens=4))
    with torch.no_grad():
        assert torch.equal(chat.model(**inputs).logits, before), "the model is as it was"
    assert fit.rounds > 0 and fit.harm.kl < fit.start.kl and (fit.samples, fit.held_out) == (96, 32)
    zero = start_of(plan)
    zero = plan_of(zero, numbers_of(zero) * 0)
    rows: dict[str, list[Any]] = {"fitted": [], "levels": [], "zero": []}
    with swapping(chat.model, plan) as swap:
        for example in builtin_examples(40, seed=77):
            swap(plain_of(plan))
            answer = original_answer(chat, example, 4)
            for kind, one in (("fitted", fit.applied(plan)), ("levels", plan), ("zero", zero)):
                rows[kind] += harm_rows(chat, swap, [one], example, answer)
    kl = {kind: mean_harm(some).kl for kind, some in rows.items()}
    assert kl["fitted"] < kl["levels"] and kl["fitted"] < kl["zero"], kl


class Cut(Exception):
    pass


def test_an_interrupted_fit_goes_on_with_the_same_numbers(chat: Chat, plan: Plan, tmp_path: Path) -> None:
    some, settings = restrict(plan, [(1, 0), (4, 1)]), FitSettings(rounds=3, batch=3, max_new_tokens=3)
    told: list[tuple[int, int]] = []

    def run(partial: Path | None = None, stop: int = -1) -> Fit:
        def progress(done: int, total: int) -> None:
            told.append((done, total))
            if done == stop:
                raise Cut

        return fit_groups(chat, some, builtin_examples(8), settings, partial, progress)

    wanted = run()
    assert told == sorted(told) and told[-1] == (32, 32)
    partial = tmp_path / "p"
    for stop in (11, 19, 26):  # in the middle of every round
        with pytest.raises(Cut):
            run(partial, stop)
        partial.write_text(partial.read_text() + '{"round": {"the')
    assert run(partial) == wanted and json.dumps(run(partial).to_json()) == json.dumps(wanted.to_json())


def test_what_cannot_be_fitted(chat: Chat, plan: Plan) -> None:
    with pytest.raises(LostattnError, match="at least 8 questions, not 7"):
        fit_groups(chat, plan, builtin_examples(7))
    with pytest.raises(LostattnError, match="patched: give its original"):
        fit_groups(Chat(chat.model, chat.processor, True), plan, builtin_examples(8))
    for wrong in (replace(plan, scores="raw", levels={}), plain_of(plan)):
        with pytest.raises(LostattnError, match="scores rule 'log'"):
            fit_groups(chat, wrong, builtin_examples(8))


# -- the calibration file


@pytest.fixture(scope="module")
def fit(plan: Plan) -> Fit:
    """Made by hand: no numbers of it are measured."""
    some = restrict(plan, [(1, 0), (4, 0), (4, 1)])
    start = start_of(some)
    fitted = plan_of(start, torch.linspace(-2, 2, len(numbers_of(start))))
    harm = mean_harm([[0.5, 1.0, 4.0, 4.0]])
    from lostattn.surgery.efficient.fits import settings_for

    return Fit(settings_for(some), start.features, fitted.weights, fitted.levels, 36, 12, 3, harm, harm)


def test_file_and_back(fit: Fit, demo_calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(replace(demo_calibration, fits=(fit,)).to_json()))
    (found,) = Calibration.read(path).fits
    assert found.to_json() == fit.to_json() and found.groups == ((1, 0), (4, 0), (4, 1))
    for layer, vectors in fit.weights.items():
        assert torch.equal(torch.tensor(found.weights[layer]), torch.tensor(vectors)), "float32 comes back as it was"
    assert "fits" not in demo_calibration.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {}},
        {"features": ["colour"]},
        {"levels": {"1": [1.0]}},
        {"samples": -1},
        {"harm": {}},
        {"more": 1},
        {"settings": {}},
        {"weights": 3},
        {"rounds": "x"},
        {"weights": {"1": [[1e9] * 6], "4": [[0.0] * 6] * 2}},
    ],
    ids=str,
)
def test_damaged_fits(fit: Fit, change: dict[str, Any]) -> None:
    with pytest.raises(LostattnError, match="damaged: make it anew"):
        Fit.from_json(fit.to_json() | change)


def test_a_fit_is_for_its_own_groups_and_settings(fit: Fit, plan: Plan) -> None:
    same = restrict(plan, [(1, 0), (4, 0), (4, 1)])
    assert fit_for([fit], same) is fit and fit.applied(same).scores == "fitted"
    for other, says in (
        (restrict(plan, [(1, 0)]), "no fit of exactly these 1 KV groups"),
        (replace(same, mode="noise", options={}), "made with mode"),
        (replace(same, queries="after_image"), "made with queries"),
        (replace(same, heads={1: (0,)}, levels={1: (0.0,)}), "for whole KV groups"),
    ):
        with pytest.raises(LostattnError, match=says):
            fit_for([fit], other)
    with pytest.raises(LostattnError, match="it holds no fit"):
        fit_for([], same)
