"""From samples to means with intervals, per module and per layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .samples import CONTROLS, MEASURES, MODULES, Sample


@dataclass(frozen=True)
class Mean:
    """Mean over samples and its 95 % interval (1.96 standard errors; None for one sample)."""

    mean: float
    low: float | None
    high: float | None
    n: int


def mean_of(values: Sequence[float]) -> Mean:
    """Mean of one number per sample."""
    x = torch.tensor(values, dtype=torch.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return Mean(mean, None, None, len(x))
    half = 1.96 * float(x.std()) / len(x) ** 0.5
    return Mean(mean, mean - half, mean + half, len(x))


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Everything the report shows of one model.

    Returns:
        `modules`: module -> measure -> mean over layers; `layers`: module -> measure -> list over layers;
        `rope`: mean of eps_RoPE over layers, `rope_layers`; `verdict`: what the paper claims, and whether it holds here.
    """
    names = [m for m in (*MODULES, *CONTROLS) if m in samples[0].rows]
    modules: dict[str, dict[str, Any]] = {}
    layers: dict[str, dict[str, list[Any]]] = {}
    for name in names:
        data = torch.tensor([s.rows[name] for s in samples], dtype=torch.float64)  # (samples, layers, measures)
        modules[name] = {m: asdict(mean_of(data[:, :, i].mean(1).tolist())) for i, m in enumerate(MEASURES)}
        layers[name] = {
            m: [asdict(mean_of(data[:, layer, i].tolist())) for layer in range(data.shape[1])]
            for i, m in enumerate(MEASURES)
        }
    rope = [[x for x in s.rope if x is not None] for s in samples]
    out: dict[str, Any] = {"samples": len(samples), "modules": modules, "layers": layers}
    if all(rope):
        out["rope"] = asdict(mean_of([sum(r) / len(r) for r in rope]))
        out["rope_layers"] = [None, *(asdict(mean_of([r[i] for r in rope])) for i in range(len(rope[0])))]
    out["verdict"] = verdict(out)
    return out


def verdict(found: dict[str, Any]) -> list[str]:
    """The paper's claims about attention, each held against these numbers."""
    attention, ffn = (found["modules"][m] for m in MODULES)
    a, f = attention["rid"]["mean"], ffn["rid"]["mean"]
    gain_a, gain_f = (x["mixig"]["mean"] for x in (attention, ffn))
    lines = [
        f"RID of attention ({a:.3f}) is {'below' if a < f else 'NOT below'} that of the feed-forward part ({f:.3f}), "
        f"{'as the paper says' if a < f else 'against the paper'}",
        f"MixIG of attention ({gain_a:+.3f}) is {'above' if gain_a > gain_f else 'NOT above'} that of the feed-forward part "
        f"({gain_f:+.3f}), {'as the paper says' if gain_a > gain_f else 'against the paper'}",
    ]
    if "rope" in found:
        rope = found["rope"]["mean"]
        near = a <= 2 * rope
        lines.append(
            f"RID of attention is {a / rope:.1f} times eps_RoPE ({rope:.3f}): "
            + ("near it, as the paper says" if near else "NOT near it, against the paper (0.06 and 0.062)")
            if rope > 0
            else "eps_RoPE is 0: rotary positions change no state of this model"
        )
    return lines
