"""The visual part of a patched head: mean of the visual values under the prior, and its log mass."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .attention_inputs import Layout

# exp(p - max p) underflows beyond a span of about 87 in float32 and 745 in float64: prefix sums then change their way.
FLOAT32_SPAN, FLOAT64_SPAN = 60.0, 600.0


def mix(a: torch.Tensor, b: torch.Tensor, log_odds: torch.Tensor) -> torch.Tensor:
    """Weighted mean of a and b (..., Dv), the weight of b given as log odds (...), in the precision of the odds."""
    return torch.lerp(a.to(log_odds.dtype), b.to(log_odds.dtype), torch.sigmoid(log_odds)[..., None])


def visual_summary(prior: torch.Tensor, v: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean of all visual values and their log mass: all that a decode step needs of an image.

    Args:
        prior: (B, K) float, or (B, Hkv, K) where KV heads differ, NaN on text keys.
        v: (B, Hkv, K, Dv).

    Returns:
        mean (B, Hkv, Dv) float32 (float64 for float64 input) and log mass (B,), or (B, Hkv).
    """
    first, last = int(layout.visual[0]), int(layout.visual[-1]) + 1
    p = prior[..., first:last]
    p = torch.where(p.isnan(), -torch.inf, p)
    weights = torch.softmax(p, -1)
    span = v[:, :, first:last]  # one view, no copy: text keys between images weigh nothing
    mean = (_by_head(weights)[:, :, None].to(v.dtype) @ span)[:, :, 0]
    return mean.to(prior.dtype), torch.logsumexp(p, -1)


def _by_head(x: torch.Tensor) -> torch.Tensor:
    """(B, N) as (B, 1, N); (B, g, N) as it is."""
    return x if x.dim() == 3 else x[:, None]


class Shares(NamedTuple):
    """What running sums need of the scores alone, each of their shape: exp(p - top), its prefix sums, and the log mass."""

    weights: torch.Tensor
    mass: torch.Tensor
    log_mass: torch.Tensor


def running_shares(prior: torch.Tensor) -> Shares | None:
    """Of scores prior (B, N) or (B, g, N); None where they lie too far apart for prefix sums."""
    top = prior.amax(-1, keepdim=True)
    dtype = torch.promote_types(prior.dtype, torch.float32)
    span = float((top - prior.amin(-1, keepdim=True)).max())
    if span > FLOAT64_SPAN:
        return None
    if span > FLOAT32_SPAN:
        dtype = torch.float64
    weights = torch.exp((prior - top).to(dtype))
    mass = weights.cumsum(-1)
    return Shares(weights, mass.clamp_min(torch.finfo(dtype).tiny), mass.log() + top)


def running_summary(
    prior: torch.Tensor, v: torch.Tensor, shares: Shares | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Running mean (B, g, N, Dv) of visual values v (B, g, N, Dv), and log mass, for scores prior (B, N) or (B, g, N).

    Returns:
        the mean, and the log mass in the shape of `prior`, float32 (float64 for float64 values).
    """
    shares = shares or running_shares(prior)
    if shares is None:
        return _scan(prior, v)
    weights, mass, log_mass = shares
    mean = (_by_head(weights)[..., None] * v).cumsum(2).div_(_by_head(mass)[..., None])
    keep = torch.promote_types(v.dtype, torch.float32)
    return mean.to(keep), log_mass.to(keep)


def whole_summaries(prior: torch.Tensor, v: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a row sees behind each run of visual keys: mean (B, g, runs, Dv) of values v (B, g, N, Dv) and log mass (..., runs)
    of all runs up to there, for scores prior (B, N) or (B, g, N). Dtypes as `running_summary`.
    """
    means: list[torch.Tensor] = []
    masses: list[torch.Tensor] = []
    for p, part in zip(prior.split(sizes, -1), v.split(sizes, 2), strict=True):
        mass = torch.logsumexp(p, -1)
        weights = torch.exp(p - mass[..., None])
        mean = (_by_head(weights)[:, :, None].to(v.dtype) @ part)[:, :, 0].to(prior.dtype)
        if means:
            odds = masses[-1] - mass
            mean = mix(mean, means[-1], odds if odds.dim() == 2 else odds[:, None])
            mass = torch.logaddexp(mass, masses[-1])
        means.append(mean)
        masses.append(mass)
    keep = torch.promote_types(v.dtype, torch.float32)
    return torch.stack(means, 2).to(keep), torch.stack(masses, -1).to(keep)


def _scan(prior: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for any span: neighbours are merged pairwise, doubling the reach, in float64."""
    mean, log_mass = v.double(), prior.double()
    reach = 1
    while reach < prior.shape[-1]:
        old_mean, old_mass = mean[:, :, :-reach], log_mass[..., :-reach]
        odds = _by_head(old_mass - log_mass[..., reach:])
        merged = mix(mean[:, :, reach:], old_mean, odds.expand(-1, v.shape[1], -1))
        mean = torch.cat([mean[:, :, :reach], merged], 2)
        log_mass = torch.cat([log_mass[..., :reach], torch.logaddexp(old_mass, log_mass[..., reach:])], -1)
        reach *= 2
    keep = torch.promote_types(v.dtype, torch.float32)
    return mean.to(keep), log_mass.to(keep)
