"""The same as `decode_attention` on NVIDIA GPUs: flash attention over whole text blocks, where they lie, the rest merged by lse.

Never run on a GPU yet: the algebra is tested on a CPU with `plain_flash` in the kernel's place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..cache.pages import Pages
from ..cache.text_blocks import DecodeRows

Flash = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], Any]


def flash_decode_attention(
    queries: DecodeRows,
    q: torch.Tensor,
    pages: Pages,
    scale: float,
    log_mass: torch.Tensor,
    mean: torch.Tensor,
    level: torch.Tensor,
    wanted: torch.Tensor | None = None,
    flash: Flash | None = None,
) -> torch.Tensor:
    """Arguments and result of `decode_attention`; heads that nobody wants are computed too.

    Blocks that hold nothing but text, and the block that is being filled, are read by the kernel; text that shares a block
    with an image is gathered. Few tokens are: a block or two an image.
    """
    flash = flash or vllm_flash
    whole, lengths, mixed = queries.whole_blocks(pages.size)
    k, v = pages.own
    out, lse = flash(q.flatten(1, 2), k.transpose(1, 2), v.transpose(1, 2), whole, lengths, scale)
    out, lse = (x.unflatten(1, (k.shape[1], -1)).float() for x in (out, lse))  # (B, H, G, D), (B, H, G)
    lse = torch.where(lengths[:, None, None] > 0, lse, -torch.inf)
    total = torch.logaddexp(lse, log_mass[:, None, None] + level)
    share = (lse - total).exp()[..., None]
    joined = share * out.nan_to_num(0.0) + (1 - share) * mean[:, :, None]
    if mixed is None:
        return joined
    # what is known so far counts as the summary of the gathered part, one for each query head
    return _with_gathered(mixed, q, pages, scale, total, joined)


def _with_gathered(
    mixed: DecodeRows,
    q: torch.Tensor,
    pages: Pages,
    scale: float,
    total: torch.Tensor,
    joined: torch.Tensor,
) -> torch.Tensor:
    count, width = mixed.blocks.shape
    k, v = pages.gather(mixed.blocks.view(-1))
    k, v = k.unflatten(0, (count, width)), v.unflatten(0, (count, width))
    if v.dtype == torch.float16:  # halves of summaries may read as infinity there
        v = v.masked_fill(mixed.hidden.view(count, width, 1, pages.size, 1), 0)
    scores = (q.float() * scale)[:, None] @ k.float().transpose(3, 4)
    scores.masked_fill_(mixed.hidden.view(count, width, 1, 1, pages.size), -torch.inf)
    final = torch.logaddexp(torch.logsumexp(scores, (1, 4)), total)
    out = (scores.sub_(final[:, None, :, :, None]).exp_() @ v.float()).sum(1)
    return out + (total - final).exp()[..., None] * joined


def vllm_flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, blocks: torch.Tensor, lengths: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """vLLM's flash attention over a paged cache, one query row per request.

    Args:
        q: (B, H, D). k, v: (all blocks, size, g, D). blocks: (B, M) int32. lengths: (B,) int32, text tokens in them.

    Returns:
        output (B, H, D), log-sum-exp (B, H).
    """
    from ..internals import flash_attn_varlen_func

    starts = torch.arange(len(q) + 1, dtype=torch.int32, device=q.device)
    longest = blocks.shape[1] * k.shape[1]
    out, lse = flash_attn_varlen_func(
        q=q, k=k, v=v, cu_seqlens_q=starts, max_seqlen_q=1, seqused_k=lengths.clamp_min(1), max_seqlen_k=max(longest, 1),
        softmax_scale=scale, causal=False, block_table=blocks, return_softmax_lse=True,
    )  # fmt: skip
    return out, lse.transpose(0, 1)


def plain_flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, blocks: torch.Tensor, lengths: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernel computes, in plain torch on any device: the specification of `vllm_flash`."""
    keys, values = (x[blocks.long()].flatten(1, 2).float() for x in (k, v))  # (B, T, g, D)
    times = q.shape[1] // keys.shape[2]
    keys, values = keys.repeat_interleave(times, 2), values.repeat_interleave(times, 2)
    scores = torch.einsum("bhd,bthd->bht", q.float(), keys) * scale
    there = torch.arange(keys.shape[1], device=q.device) < lengths.clamp_min(1)[:, None]
    scores = scores.masked_fill(~there[:, None], -torch.inf)
    return torch.einsum("bht,bthd->bhd", scores.softmax(-1), values), scores.logsumexp(-1)
