"""Prefill rows of patched heads in closed form, over a cache that brings its own visual values: plain torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ....patches.attention_inputs import AttentionInputs, Layout
from ....patches.closed import patched_heads, put_heads
from ....patches.summary import Shares, running_shares, running_summary
from ....patches.text_part import kv_heads


class Weights(NamedTuple):
    """Of every query row, (n,) each: weight of its own visual value, 0 on text, and mass of all so far, float64; their log
    mass, float32, -inf without any."""

    own: torch.Tensor
    mass: torch.Tensor
    log_mass: torch.Tensor


@dataclass(frozen=True)
class VisualRows:
    """What the query rows of one request see of its images, the same in every layer.

    Attributes:
        prior: scores of its visual keys, float32 (1, N), or (1, g, N) where KV heads differ.
        shares: of these, see `running_shares`.
        count: visual keys that each row sees, int64 (n,).
        before: visual keys in front of the rows.
        weights: None where the scores lie too far apart for prefix sums.
    """

    prior: torch.Tensor
    shares: Shares | None
    count: torch.Tensor
    before: int
    weights: Weights | None

    @classmethod
    def of(cls, prior: torch.Tensor, layout: Layout, rows: int) -> VisualRows:
        """Of the last `rows` keys of a layout as query rows. One host synchronisation."""
        shares = running_shares(prior)
        count, before = visible_counts(layout, rows)
        at = layout.visual - (layout.runs[-1][1] - rows)
        own = torch.zeros(rows, dtype=torch.float64, device=at.device)
        if shares is None:
            return cls(prior, None, count, before, None)
        weights, mass, log_mass = (x[0].double() for x in shares)
        own[at[before:]] = weights[before:]
        none, last = count == 0, (count - 1).clamp_min(0)
        seen = Weights(own, mass[last].masked_fill(none, 0), log_mass[last].masked_fill(none, -torch.inf).float())
        return cls(prior, shares, count, before, seen)


def visible_counts(layout: Layout, rows: int) -> tuple[torch.Tensor, int]:
    """Visual keys that each of the last `rows` keys sees as a query row, int64 (rows,), and those in front of the rows."""
    at = layout.visual - (layout.runs[-1][1] - rows)
    before = int((at < 0).sum())
    own = torch.zeros(rows, dtype=torch.int64, device=at.device)
    own[at[before:]] = 1
    return before + own.cumsum(0), before


def torch_rows(
    inputs: AttentionInputs,
    heads: list[int],
    rows: VisualRows,
    front: torch.Tensor | None,
    kept: torch.Tensor,
    out: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Closed form of the listed heads, all rows.

    Args:
        inputs: of one request; without `running`, `summary`, `scores.prior`, which `rows` and `front` stand for.
        front: what `inputs.v` lacks: values of the visual keys in front of the rows, float32 (g, before, D), of the KV heads that
            serve listed heads.
        kept: rows whose running summary is wanted, int64 (w,); they see visual keys.
        out: (n, H, D), of which the listed heads are filled.

    Returns:
        mean, float32 (w, g, D), of the KV heads that serve listed heads, and log mass, float32 (w,), or (w, g) where KV heads
        differ.
    """
    assert inputs.layout is not None
    used, values = sorted(set(kv_heads(inputs, heads))), inputs.layout.keys(inputs.v, 2, True)
    values = values if len(used) == values.shape[1] else values[:, used]
    if front is not None:
        values = torch.cat([front[None], values[:, :, rows.before :]], 2)
    mean, log_mass = running_summary(rows.prior, values, rows.shares)
    last = mean.new_zeros(1, inputs.k.shape[1], mean.shape[3])
    last[:, used] = mean[:, :, -1]
    result = patched_heads(replace(inputs, running=(mean, log_mass), summary=(last, log_mass[..., -1])), heads)
    put_heads(out.transpose(0, 1)[None], heads, result)
    at = rows.count[kept] - 1
    mass = log_mass[0][..., at]
    return mean[0][:, at].transpose(0, 1), mass if mass.dim() == 1 else mass.T
