"""Attention jobs for the tests of the forms, and the oracle that they are held against."""

from __future__ import annotations

from dataclasses import replace

import torch
from lostattn.patches.attention_inputs import AttentionInputs, Layout, PriorScores
from lostattn.patches.eager import eager_attention

T, V = "t", "v"
LAYOUTS = {
    "image in the middle": "ttttt" + "v" * 20 + "tttttttt",
    "image first": "v" * 15 + "ttttt",
    "image last": "tttttt" + "v" * 12,
    "adjacent images are one run": "tt" + "v" * 9 + "v" * 9 + "ttt",
    "many images": "t" + ("vvvv" + "tt") * 6 + "t",
    "one-token runs": "tv" * 12 + "t",
    "only one visual token": "tttttvtttt",
    "only visual": "v" * 17,
}
HEADS = {
    "all": range(8),
    "one group": range(4),
    "scattered": (0, 3, 5),
    "one": (6,),
    "groups and more": (0, 1, 2, 3, 6),
}
# float32: error of the form; bfloat16: error of any attention at this precision
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 4e-2}


def make_job(
    layout: str,
    heads: object = range(8),
    rows: int | None = None,
    kv_heads: int = 2,
    dtype: torch.dtype = torch.float64,
    level: bool = False,
    batch: int = 2,
    span: float = 1.0,
) -> AttentionInputs:
    """A job of 8 heads whose last `rows` rows (default: all) are asked for."""
    torch.manual_seed(0)
    keys = len(layout)
    rows = rows or keys
    visual = torch.tensor([c == V for c in layout]).expand(batch, -1)
    prior = (torch.randn(batch, keys, dtype=torch.float64) * span).masked_fill(~visual, torch.nan)
    flags = torch.zeros(8, dtype=torch.bool)
    flags[list(heads)] = True  # type: ignore[call-overload]
    q = torch.randn(batch, 8, rows, 32, dtype=torch.float64).to(dtype)
    k, v = (torch.randn(batch, kv_heads, keys, 32, dtype=torch.float64).to(dtype) for _ in range(2))
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    levels = torch.linspace(-2, 2, 8, dtype=exact) if level else None
    scores = PriorScores(prior.to(exact), levels)
    return AttentionInputs(q, k, v, 32**-0.5, scores, flags, layout=Layout.of(visual))


def oracle(job: AttentionInputs) -> torch.Tensor:
    """The eager form on float64 copies of the same numbers."""
    level = None if job.scores.level is None else job.scores.level.double()
    scores = PriorScores(job.scores.prior.double(), level, job.scores.exact)
    return eager_attention(replace(job, q=job.q.double(), k=job.k.double(), v=job.v.double(), scores=scores))[0]


def close(got: torch.Tensor, job: AttentionInputs) -> None:
    assert got.dtype == job.q.dtype
    error = (got.double() - oracle(job)).abs().max().item()
    assert error < TOLERANCE[job.q.dtype], error
