"""Attention of single query rows on the text keys of their requests and one summary each, batched over requests."""

from __future__ import annotations

import torch

from ..cache.pages import Pages
from ..cache.text_blocks import DecodeRows

SCRATCH_BYTES = 4 * 2**20  # gathered at once: stays in the caches of a CPU


def decode_attention(
    queries: DecodeRows,
    q: torch.Tensor,
    pages: Pages,
    scale: float,
    log_mass: torch.Tensor,
    mean: torch.Tensor,
    level: torch.Tensor,
    wanted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax over text keys and a summary, which counts as one key of score log_mass + level and value mean.

    Args:
        q: query rows (B, g, G, D): g KV heads with G query heads each.
        log_mass: float32 (B,), or (B, g) where KV heads differ. mean: float32 (B, g, D). level: float32 (g, G).
        wanted: query heads that are asked for, bool (g, G), or None for all; a form may leave anything in the others.

    Returns:
        (B, g, G, D) float32.
    """
    q = (q.float() * scale)[:, None]  # (B, 1, g, G, D)
    log_mass = (log_mass[:, None] if log_mass.dim() == 1 else log_mass)[..., None] + level
    per_block = pages.block_bytes
    parts, start = [], 0
    for piece in queries.split(max(SCRATCH_BYTES // per_block, 1)):
        rows = slice(start, start + len(piece.entries))
        parts.append(_attend(piece, q[rows], pages, log_mass[rows], mean[rows]))
        start = rows.stop
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend(
    queries: DecodeRows,
    q: torch.Tensor,
    pages: Pages,
    log_mass: torch.Tensor,
    mean: torch.Tensor,
) -> torch.Tensor:
    count, width = queries.blocks.shape
    k, v = pages.gather(queries.blocks.view(-1))  # (B M, H, size, D)
    k, v = k.unflatten(0, (count, width)), v.unflatten(0, (count, width))  # (B, M, g, size, D)
    if v.dtype == torch.float16:  # halves of summaries may read as infinity there
        v = v.masked_fill(queries.hidden.view(count, width, 1, pages.size, 1), 0)
    scores = q @ k.float().transpose(3, 4)  # (B, M, g, G, size)
    scores.masked_fill_(queries.hidden.view(count, width, 1, 1, pages.size), -torch.inf)
    total = torch.logaddexp(torch.logsumexp(scores, (1, 4)), log_mass)  # (B, g, G)
    weights = scores.sub_(total[:, None, :, :, None]).exp_()
    out = (weights @ v.float()).sum(1)
    return torch.addcmul(out, (log_mass - total).exp_()[..., None], mean[:, :, None])
