"""What a module adds to the residual stream: effective rank, RID, mixing entropy, MixIG (paper, sections 3.2 and 3.3).

x and x_new are states of S tokens by H features, shape (..., S, H), before and after a module; sigma are singular values.
Every measure takes a tensor of any float dtype or the `Factors` of `factorize(x)`, and returns a tensor of the batch
shape (...), 0-d for one matrix, float64 unless `dtype=torch.float32`. `eps` and `dtype` are explained at `factorize`; a
`Factors` brings its own. Entropies are in nats. NaN, infinity, shapes that differ: `LostattnError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from ..patches.errors import LostattnError
from .spectrum import Factors, factorize

__all__ = [
    "Factors",
    "StepMeasures",
    "effective_rank",
    "factorize",
    "measure_step",
    "mixing_information_gain",
    "residuals",
    "rid",
    "spectrum_change",
    "support_innovation",
    "token_mixing_entropy",
]

State = torch.Tensor | Factors
Combine = Literal["mean", "sum", "l2"]
Rows = Literal["mean", "last"]
_CHUNK = 1 << 21  # cosines that are held at once


@dataclass(frozen=True)
class StepMeasures:
    """All numbers of one step X -> X', each of the batch shape; `_new` belongs to X'."""

    erank: torch.Tensor
    erank_new: torch.Tensor
    rank: torch.Tensor  # numerical rank of X, int64
    delta_s: torch.Tensor
    column_residual: torch.Tensor
    row_residual: torch.Tensor
    delta_d: torch.Tensor
    rid: torch.Tensor
    tme: torch.Tensor
    tme_new: torch.Tensor
    mixig: torch.Tensor


def effective_rank(x: State, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """eRank(X) = exp(-sum p log p), p = sigma / sum sigma, over all singular values (Def. 3.4).

    In [1, min(S, H)]. One token, or all tokens equal and not zero: 1. X = 0: 0. The authors' code adds a small number
    inside the logarithm, which moves the result by less than 1e-8.
    """
    factors = _factors(x, None, dtype)
    return _erank(factors).to(factors.dtype)


def spectrum_change(x: State, x_new: State, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Delta S = |eRank(X') - eRank(X)| / min(S, H) (section 3.2).

    In [0, 1 - 1/min(S, H)] if neither is 0; with X = 0 or X' = 0 it is the other's eRank / min(S, H), at most 1;
    both 0, or one token and neither 0: 0.
    """
    before, after = _pair(x, x_new, None, dtype)
    return _delta_s(before, after).to(before.dtype)


def residuals(
    x: State, x_new: State, *, eps: float | None = None, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Column and row residual: ||(I - P_C) X'||_F / ||X'||_F and ||X' (I - P_R)||_F / ||X'||_F.

    P_C, P_R project on X's column space (in R^S) and row space (in R^H) at its numerical rank. Each in [0, 1], and
    exactly 0 where X has full rank on that side: hidden states with S <= H usually have column residual 0.
    Norms of explicit residuals, so X' = X gives 0 to rounding, plus what of X lies below the tolerance.
    X = 0 and X' not: both 1. X' = 0: both 0.
    """
    before, after = _pair(x, x_new, eps, dtype)
    columns, rows = before.outside(after)
    return columns.to(before.dtype), rows.to(before.dtype)


def support_innovation(
    x: State, x_new: State, *, eps: float | None = None, dtype: torch.dtype | None = None, combine: Combine = "mean"
) -> torch.Tensor:
    """Delta D: the mean of column and row residual (section 3.2; see `residuals`), in [0, 1].

    At most 1/2 if X has full rank, and 0 for every X' if X is square as well. X = 0 and X' not: 1. X' = 0: 0.

    Args:
        combine: "mean" as in the paper, or one of the authors' code's: "sum", in [0, 2], or its default "l2", the root
            of the sum of squares, in [0, sqrt 2]. Their code measures the feed-forward step against the layer's input,
            the paper (4.2) against the state after attention.
    """
    if combine not in ("mean", "sum", "l2"):
        raise LostattnError(f"combine is {combine!r}: it must be 'mean', 'sum' or 'l2'")
    before, after = _pair(x, x_new, eps, dtype)
    columns, rows = before.outside(after)
    result = torch.hypot(columns, rows) if combine == "l2" else columns + rows
    return (result / 2 if combine == "mean" else result).to(before.dtype)


def rid(x: State, x_new: State, *, eps: float | None = None, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Representation Information Discrepancy, RID(X | X') = Delta S + Delta D, in [0, 2] (Def. 3.6). Not symmetric.

    X' = X and X' = c X, c != 0: 0. X' = 0 and X not: eRank(X) / min(S, H). X = 0 and X' not: 1 + eRank(X') / min(S, H).
    """
    before, after = _pair(x, x_new, eps, dtype)
    columns, rows = before.outside(after)
    return (_delta_s(before, after) + (columns + rows) / 2).to(before.dtype)


def token_mixing_entropy(
    x: State, *, dtype: torch.dtype | None = None, sharpen: float = 1.0, rows: Rows = "mean", normalize: bool = False
) -> torch.Tensor:
    """TME: mean over tokens t of the entropy of P_tj proportional to (cos(x_t, x_j) + 1) / 2 (Def. 3.7).

    In [0, log S], and by all evidence never below log S - log 2 (a bound not proved; two opposite clusters of equal size
    reach it). Equal tokens: log S. One token: 0. A zero token has cosine 0 with everything, itself included: it sees all
    tokens alike, entropy log S, and X = 0 has TME log S. Opposite tokens have weight exactly 0.

    Args:
        sharpen: weights to this power; the authors' code takes 8.
        rows: "mean" over all tokens, or only the "last" one as the authors' code does.
        normalize: divide by log S, as the authors' code does; one token stays 0.
    """
    if rows not in ("mean", "last") or not (math.isfinite(sharpen) and sharpen > 0):
        raise LostattnError(f"rows is {rows!r}, sharpen {sharpen!r}: rows must be 'mean' or 'last', sharpen above 0")
    factors = _factors(x, None, dtype)
    kind = (sharpen, rows, normalize)
    if kind not in factors.entropies:
        results = [_entropy(matrix, factors.dtype, *kind) for matrix in factors.matrices()]
        flat = torch.stack(results) if results else factors.x.new_zeros(0)
        factors.entropies[kind] = flat.reshape(factors.batch).to(factors.dtype)
    return factors.entropies[kind]


def mixing_information_gain(
    x: State,
    x_new: State,
    *,
    dtype: torch.dtype | None = None,
    sharpen: float = 1.0,
    rows: Rows = "mean",
    normalize: bool = False,
) -> torch.Tensor:
    """MixIG = TME(X') - TME(X) (section 3.3), positive if the step makes tokens see each other more evenly.

    By Def. 3.7 as it stands |MixIG| <= log 2 = 0.693 (see the bound at `token_mixing_entropy`), yet the paper's Table 1
    prints -0.80 for Noise-Delta: its numbers seem to be on another scale, perhaps the authors' `sharpen=8, rows="last",
    normalize=True`. Their `tme_delta` is something else, the TME of X' - X. One token, or X' = c X with c > 0: 0.
    """
    before, after = _pair(x, x_new, None, dtype)
    old, new = (token_mixing_entropy(s, sharpen=sharpen, rows=rows, normalize=normalize) for s in (before, after))
    return new - old


def measure_step(x: State, x_new: State, *, eps: float | None = None, dtype: torch.dtype | None = None) -> StepMeasures:
    """Every number of a step. Hand the `Factors` of x_new to the next step: three states, three decompositions.

    In the plain definitions; see the single measures for bounds and degenerate states.
    """
    before, after = _pair(x, x_new, eps, dtype)
    columns, rows = before.outside(after)
    change, support = _delta_s(before, after), (columns + rows) / 2
    exact = {
        "erank": _erank(before),
        "erank_new": _erank(after),
        "delta_s": change,
        "column_residual": columns,
        "row_residual": rows,
        "delta_d": support,
        "rid": change + support,
    }
    tme, tme_new = token_mixing_entropy(before), token_mixing_entropy(after)
    rounded = {name: value.to(before.dtype) for name, value in exact.items()}
    return StepMeasures(rank=before.rank, tme=tme, tme_new=tme_new, mixig=tme_new - tme, **rounded)


def _factors(x: State, eps: float | None, dtype: torch.dtype | None) -> Factors:
    if not isinstance(x, Factors):
        return factorize(x, eps=eps, dtype=dtype)
    if eps is not None or dtype not in (None, x.dtype):
        raise LostattnError("eps and dtype of a Factors are chosen once: give them to factorize")
    return x


def _pair(x: State, x_new: State, eps: float | None, dtype: torch.dtype | None) -> tuple[Factors, Factors]:
    """Both as Factors, the second in the manner of the first; equal shapes, equal dtype inside."""
    if isinstance(x_new, Factors) and dtype is None and not isinstance(x, Factors):
        dtype = x_new.dtype
    before = _factors(x, eps, dtype)
    after = x_new if isinstance(x_new, Factors) else factorize(x_new, dtype=before.dtype)
    if before.x.shape != after.x.shape:
        raise LostattnError(
            f"the two states have shapes {tuple(before.x.shape)} and {tuple(after.x.shape)}: make them equal"
        )
    if before.dtype != after.dtype:
        raise LostattnError(
            f"one state is prepared for {before.dtype}, the other for {after.dtype}: factorize both alike"
        )
    return before, after


def _erank(factors: Factors) -> torch.Tensor:
    shares = factors.shares
    return torch.exp(-torch.xlogy(shares, shares).sum(-1)) * (shares.sum(-1) > 0)


def _delta_s(before: Factors, after: Factors) -> torch.Tensor:
    return (_erank(after) - _erank(before)).abs() / min(before.x.shape[-2:])


def _entropy(x: torch.Tensor, dtype: torch.dtype, sharpen: float, rows: Rows, normalize: bool) -> torch.Tensor:
    """TME of one (S, H), in chunks of rows, so that no (S, S) lives."""
    tokens = len(x)
    unit = x.to(dtype, copy=True)
    for order in (math.inf, 2):  # by the largest entry first, so that no square over- or underflows
        size = torch.linalg.vector_norm(unit, order, dim=-1, keepdim=True)
        unit /= torch.where(size > 0, size, 1.0)
    step = max(1, _CHUNK // tokens)
    total = unit.new_zeros((), dtype=torch.float64)
    for seen in unit.split(step) if rows == "mean" else [unit[-1:]]:
        weights = (seen @ unit.mT).clamp_(-1, 1).add_(1).div_(2)
        weights = weights if sharpen == 1 else weights.pow_(sharpen)
        mass = weights.sum(-1)
        total += (mass.log() - torch.xlogy(weights, weights).sum(-1) / mass).sum(dtype=torch.float64)
    mean = (total / (tokens if rows == "mean" else 1)).clamp(0, math.log(tokens))
    return mean / math.log(tokens) if normalize and tokens > 1 else mean
