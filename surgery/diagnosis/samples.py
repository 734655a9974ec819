"""Measuring one question: RID, MixIG and their parts for every layer, module and control."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ...patches.errors import LostattnError
from ...serving.data import Example
from ..chat import Chat, stack
from ..measures import StepMeasures, factorize, measure_step, rid
from .capture import LayerStates, captured
from .controls import FFN, QKV, noise_update, noise_weights, without_rope

MEASURES = ("erank_new", "delta_s", "delta_d", "rid", "tme_new", "mixig")  # fields of StepMeasures
MODULES = ("attention", "feed_forward")
CONTROLS = ("noise_delta", "noise_qkv", "noise_ffn")
TOKENS = ("all", "visual", "text")
Table = list[list[float | None]]


@dataclass
class Sample:
    """Numbers of one question: module or control -> one row per layer, one number per entry of MEASURES.

    `rope` has one number per layer: RID(X_in with RoPE | X_in without), layer 0 left out (None), whose input no rotary
    position has reached. `paths` counts the attention calls of a patched model by their form.
    """

    rows: dict[str, Table] = field(default_factory=dict)
    rope: list[float | None] = field(default_factory=list)
    paths: dict[str, int] = field(default_factory=dict)

    def add(self, module: str, layer: int, step: StepMeasures) -> None:
        """Note one step."""
        table = self.rows.setdefault(module, [])
        assert len(table) == layer
        table.append([float(getattr(step, name)) for name in MEASURES])


@torch.no_grad()
def measure_sample(chat: Chat, example: Example, tokens: str, controls: bool, seed: int) -> Sample:
    """Run one question and measure every layer while it runs.

    Args:
        tokens: rows of the states that count: `all`, `visual` or `text`.
        controls: also Noise-Delta (same run), Noise-QKV and Noise-FFN (a run each).
        seed: of the controls.

    Raises:
        LostattnError: a prompt without such tokens.
    """
    inputs = chat.encode(example.open(), example.question)
    visual = chat.visual(inputs)
    rows = torch.ones_like(visual) if tokens == "all" else visual if tokens == "visual" else ~visual
    if not bool(rows.any()):
        raise LostattnError(f"row {example.row}: the prompt has no {tokens} tokens")
    sample = Sample()
    if chat.patched:
        chat.model.sap_settings.counts.clear()

    def visit(states: LayerStates) -> None:
        own, still = (factorize(states.before[i, rows]) for i in (0, 1))
        _measure(sample, states, rows, own, ("attention", "feed_forward"))
        sample.rope.append(float(rid(own, still)) if states.layer else None)
        if controls:
            noise = noise_update(states.before[0, rows], states.attention[0, rows], seed * 1000 + states.layer)
            sample.add("noise_delta", states.layer, measure_step(own, noise.to(states.before.dtype)))

    with captured(chat.model, visit), without_rope(chat.model, [1]):
        chat.model(**stack([inputs, inputs]), use_cache=False, logits_to_keep=1)
    if controls:
        for name, weights, module in (("noise_qkv", QKV, "attention"), ("noise_ffn", FFN, "feed_forward")):
            _measure_control(chat, inputs, rows, sample, name, weights, module, seed)
    if chat.patched:
        sample.paths = dict(chat.model.sap_settings.counts)
    return sample


def _measure(sample: Sample, states: LayerStates, rows: torch.Tensor, before: Any, names: tuple[str, str]) -> None:
    middle = factorize(states.attention[0, rows])
    sample.add(names[0], states.layer, measure_step(before, middle))
    sample.add(names[1], states.layer, measure_step(middle, factorize(states.after[0, rows])))


def _measure_control(
    chat: Chat,
    inputs: dict[str, torch.Tensor],
    rows: torch.Tensor,
    sample: Sample,
    name: str,
    weights: tuple[str, ...],
    module: str,
    seed: int,
) -> None:
    """One run with replaced weights; only the module that they belong to is measured."""

    def visit(states: LayerStates) -> None:
        first, second = states.before, states.attention
        if module == "feed_forward":
            first, second = states.attention, states.after
        sample.add(name, states.layer, measure_step(first[0, rows], second[0, rows]))

    with noise_weights(chat.model, weights, seed), captured(chat.model, visit):
        chat.model(**inputs, use_cache=False, logits_to_keep=1)
