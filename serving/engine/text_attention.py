"""Attention of single query rows on the text keys of their requests, over the paged cache, batched over requests."""

from __future__ import annotations

import torch

from .pages import Pages
from .steps import Queries

SCRATCH_BYTES = 4 * 2**20  # gathered at once: stays in the caches of a CPU


def text_attention(
    queries: Queries, q: torch.Tensor, pages: Pages, scale: float, groups: list[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention on text keys.

    Args:
        q: query rows (B, g, G, D): g KV heads with G query heads each.
        groups: the KV heads, ascending, or None for all of the cache.

    Returns:
        output (B, g, G, D) and log-sum-exp (B, g, G), float32.
    """
    per_block = pages.cache[0].numel() * pages.cache.element_size()
    pieces = queries.split(max(SCRATCH_BYTES // per_block, 1))
    start, found = 0, []
    for piece in pieces:
        end = start + len(piece.entries)
        found.append(_attend(piece, q[start:end], pages, scale, groups))
        start = end
    if len(found) == 1:
        return found[0]
    return torch.cat([out for out, _ in found]), torch.cat([lse for _, lse in found])


def _attend(
    queries: Queries, q: torch.Tensor, pages: Pages, scale: float, groups: list[int] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    count, width = queries.blocks.shape
    k, v = pages.gather(queries.blocks.flatten())  # (B M, H, size, D)
    if groups is not None and len(groups) < k.shape[1]:
        k, v = k[:, groups], v[:, groups]
    hidden = queries.hidden.view(count, width, 1, 1, pages.size)
    k, v = k.unflatten(0, (count, width)), v.unflatten(0, (count, width))  # (B, M, g, size, D)
    if v.dtype == torch.float16:  # halves of summaries may read as infinity there
        v = v.masked_fill(hidden.view(count, width, 1, pages.size, 1), 0)
    q = (q.float() * scale)[:, None]  # (B, 1, g, G, D)
    scores = q @ k.float().transpose(-1, -2)  # (B, M, g, G, size)
    scores = scores.masked_fill_(hidden, -torch.inf)
    top = scores.amax((1, 4), keepdim=True)
    weights = scores.sub_(top).exp_()
    mass = weights.sum((1, 4))  # (B, g, G)
    out = (weights @ v.float()).sum(1) / mass[..., None]
    return out, mass.log() + top[:, 0, :, :, 0]
