"""Fitting scores rule `fitted`: gradient descent on the KL of the next token, the model's weights frozen.

Every patched KV head has a weight per feature of a visual token, every patched query head a level. They start where they are
a uniform prior at the measured levels (rule `log`), and move so that the patched model's next-token distributions on the
original's own answers come near the original's. Questions that are held out say when to stop.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ...patches.errors import LostattnError
from ...patches.family import decoder_of
from ...patches.plan import FEATURES, MOST_LEVEL, Plan
from ...serving.data import Example
from ...serving.resume import Progress, fingerprint
from ..chat import Chat
from .fits import HELD_OUT, Fit, check_enough, settings_for
from .frontier import Harm
from .harm import Lesson, mean_harm, original_answer, plain_of, prepare
from .search import Journal, Tick
from .swap import Swap, swapping

JOURNAL = 1  # what is computed in which order: a run is not continued by a program that computes otherwise
KEPT = 2**30  # bytes of questions made ready that stay in memory from round to round
State = dict[str, Any]
Pair = tuple[Example, Sequence[int]]  # a question, and the original's answer


@dataclass(frozen=True)
class FitSettings:
    """How the numbers are looked for.

    Attributes:
        rounds: passes over the questions at most.
        patience: rounds without a lower KL on the questions held out, after which it stops.
        batch: questions per step.
        rate: of Adam in the first round; in round i it is `rate / (1 + i / 4)`.
        seed: of the order of the questions.
        max_new_tokens: the original's answers are compared so far.
    """

    rounds: int = 20
    patience: int = 3
    batch: int = 8
    rate: float = 0.05
    seed: int = 0
    max_new_tokens: int = 16


def fit_groups(
    chat: Chat,
    plan: Plan,
    examples: Sequence[Example],
    settings: FitSettings | None = None,
    partial: Path | None = None,
    progress: Tick = lambda done, total: None,
) -> Fit:
    """Find weights and levels for the whole KV groups of a plan.

    Args:
        chat: a plain model; it is plain again afterwards.
        plan: of scores rule `log`, with measured levels; all its heads are of whole KV groups.
        examples: at least eight; every fourth is held out.
        partial: file that takes every finished round, so that an interrupted run goes on where it stopped, with the same
            numbers as one that was not interrupted.
        progress: done and all questions of all rounds; it jumps to the end where the fit stops early.

    Raises:
        LostattnError: a patched model, a plan or examples that cannot be used, or a disk that refuses.
    """
    settings = settings or FitSettings()
    if chat.patched:
        raise LostattnError("priors are fitted on the plain model, and this one is patched: give its original")
    check_enough(len(examples))
    start = start_of(plan)
    total = (1 + settings.rounds) * len(examples)
    what = {"journal": JOURNAL, "plan": start.to_json(), **asdict(settings)}
    journal = Journal(Progress(partial, fingerprint(chat.model, examples, what)), progress, total)
    with swapping(chat.model, start) as swap, frozen(chat.model):
        fitter = Fitter(chat, swap, start, plain_of(start), examples, settings, journal)
        states = fitter.run()
    progress(total, total)
    best = min(range(len(states)), key=lambda i: states[i]["held_out"][0])
    fitted = plan_of(start, torch.tensor(states[best]["theta"]))
    count = len(examples) // HELD_OUT
    return Fit(
        settings_for(plan),
        start.features,
        fitted.weights,
        fitted.levels,
        len(examples) - count,
        count,
        best,
        Harm(*states[0]["held_out"]),
        Harm(*states[best]["held_out"]),
    )


def start_of(plan: Plan) -> Plan:
    """The plan of scores rule `fitted` that a fit begins with: a uniform prior of rule `log` at the plan's levels."""
    if plan.scores != "log" or not plan.heads:
        raise LostattnError("a fit begins with a plan of scores rule 'log' that patches whole KV groups")
    features = tuple(name for name in FEATURES if name != "prior" or plan.mode != "uniform")
    first = tuple(float(name == "fewness") for name in features)
    weights = {layer: (first,) * len(plan.kv_heads_of(layer)) for layer in plan.layers}
    return replace(plan, scores="fitted", temperature=1.0, features=features, weights=weights)


def numbers_of(plan: Plan) -> torch.Tensor:
    """All weights and levels of a plan as one vector: layer by layer, weights before levels. float32."""
    parts = [x for i in plan.layers for x in (*(a for v in plan.weights[i] for a in v), *plan.levels[i])]
    return torch.tensor(parts, dtype=torch.float32)


def pieces(plan: Plan, theta: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Layer, weights (KV heads, F) and levels (heads,) out of the vector of `numbers_of`."""
    at, width = 0, len(plan.features)
    for layer in plan.layers:
        kv_heads, heads = len(plan.weights[layer]), len(plan.levels[layer])
        end = at + kv_heads * width
        yield layer, theta[at:end].view(kv_heads, width), theta[end : end + heads]
        at = end + heads


def plan_of(plan: Plan, theta: torch.Tensor) -> Plan:
    """The plan with the numbers of a vector."""
    results = list(pieces(plan, theta.clamp(-MOST_LEVEL, MOST_LEVEL)))
    weights = {layer: tuple(tuple(v) for v in w.tolist()) for layer, w, _ in results}
    return replace(plan, weights=weights, levels={layer: tuple(b.tolist()) for layer, _, b in results})


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """A block in which no weight of the model takes a gradient."""
    before = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for p, wanted in zip(model.parameters(), before, strict=True):
            p.requires_grad_(wanted)


@dataclass
class Fitter:
    """One fit on a model that is inside `swapping`.

    Attributes:
        plan: what the fit begins with.
        original: what it comes near to: the plan that changes nothing.
    """

    chat: Chat
    swap: Swap
    plan: Plan
    original: Plan
    examples: Sequence[Example]
    settings: FitSettings
    journal: Journal
    kept: dict[int, Lesson] = field(default_factory=dict)

    def run(self) -> list[State]:
        """The state at the start and after every round."""
        tokens = self.settings.max_new_tokens
        self.swap(self.original)
        answers = [self.journal.row("answer", 0, original_answer, self.chat, e, tokens) for e in self.examples]
        pairs = list(zip(self.examples, answers, strict=True))
        self.held_out = pairs[HELD_OUT - 1 :: HELD_OUT]
        self.training = [pair for i, pair in enumerate(pairs) if i % HELD_OUT != HELD_OUT - 1]
        states = [self.journal.row("round", len(pairs), self.begin)]
        for number in range(self.settings.rounds):
            states.append(self.journal.row("round", len(pairs), self.round, states[-1], number))
            best = min(range(len(states)), key=lambda i: states[i]["held_out"][0])
            if len(states) - 1 - best >= self.settings.patience:
                break
        return states

    def begin(self) -> State:
        theta = numbers_of(self.plan)
        zeros = torch.zeros_like(theta).tolist()
        return {
            "theta": theta.tolist(),
            "exp_avg": zeros,
            "exp_avg_sq": zeros,
            "step": 0,
            "kl": None,
            "held_out": self.judge(theta),
        }

    def round(self, state: State, number: int) -> State:
        """One pass over the training questions in an order of its own, then the questions held out."""
        theta = torch.tensor(state["theta"], device=self.chat.model.device).requires_grad_()
        rate = self.settings.rate / (1 + number / 4)
        adam = torch.optim.Adam([theta], lr=rate)
        if state["step"]:
            moments = {name: torch.tensor(state[name], device=theta.device) for name in ("exp_avg", "exp_avg_sq")}
            adam.state[theta] = {"step": torch.tensor(float(state["step"])), **moments}
        order = random.Random(f"{self.settings.seed} {number}").sample(self.training, len(self.training))
        losses = []
        for first in range(0, len(order), self.settings.batch):
            part = order[first : first + self.settings.batch]
            for pair in part:
                loss = self.loss(theta, pair)
                (loss / len(part)).backward()
                losses.append(loss.item())
                self.journal.tick(self.journal.done + len(losses), self.journal.total)
            adam.step()
            adam.zero_grad()
        kept = adam.state[theta]
        return {
            "theta": theta.tolist(),
            **{name: kept[name].tolist() for name in ("exp_avg", "exp_avg_sq")},
            "step": int(kept["step"]),
            "kl": sum(losses) / len(losses),
            "held_out": self.judge(theta.detach().cpu()),
        }

    def lesson(self, pair: Pair) -> Lesson:
        """A question made ready; it is kept for the next round while memory allows."""
        key = id(pair)
        if key in self.kept:
            return self.kept[key]
        result = prepare(self.chat, self.swap, self.plan, *pair, self.original)
        if sum(lesson.size for lesson in self.kept.values()) + result.size <= KEPT:
            self.kept[key] = result
        return result

    def loss(self, theta: torch.Tensor, pair: Pair) -> torch.Tensor:
        """KL(original, patched) of the next token, mean over the answer's tokens, with the graph of `theta`."""
        model, lesson = self.chat.model, self.lesson(pair)
        self.swap(self.plan)
        self.put(theta)
        model.sap_settings.force("any_mask")  # the form that carries gradients, taken without a word
        result = lesson.log_probs(model)
        model.sap_settings.force("auto")
        return lesson.kl(result).mean()

    def put(self, theta: torch.Tensor) -> None:
        """Let the layers use the vector itself, so that gradients reach it."""
        layers = decoder_of(self.chat.model.model).layers
        for index, weights, levels in pieces(self.plan, theta):
            part = layers[index].self_attn.sap_layer
            kv_heads = torch.tensor(self.plan.kv_heads_of(index), device=theta.device)
            heads = torch.tensor(self.plan.heads[index], device=theta.device)
            whole = theta.new_zeros(self.plan.kv_heads(index), weights.shape[1]).index_copy(0, kv_heads, weights)
            level = theta.new_zeros(self.plan.num_heads).index_copy(0, heads, levels)
            layers[index].self_attn.sap_layer = replace(part, weights=whole, levels=level, _copies={})

    def judge(self, theta: torch.Tensor) -> list[float]:
        """KL, agreement and share of tokens on the questions held out."""
        plan, rows = plan_of(self.plan, theta), []
        for pair in self.held_out:
            lesson = self.lesson(pair)
            self.swap(plan)
            with torch.no_grad():
                rows.append(lesson.row(lesson.log_probs(self.chat.model)))
        return list(asdict(mean_harm(rows)).values())
