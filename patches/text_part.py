"""Ordinary attention of query rows on the text keys that they may see: one half of the closed form."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .attention_inputs import AttentionInputs

BLOCK = (
    512  # rows of one kernel call where a window moves along: longer ones would read keys that few of their rows see
)
FEW = 32  # keys for which the CPU's fused kernel takes up to twice as long as two products


class Piece(NamedTuple):
    """Neighbouring query rows start..end-1 of a call, all of one kind.

    Attributes:
        out, lse: their attention on text keys and its log-sum-exp, (B, h, rows, Dv) and (B, h, rows); None if they see no
            text.
    """

    start: int
    end: int
    out: torch.Tensor | None
    lse: torch.Tensor | None


def text_pieces(inputs: AttentionInputs, heads: list[int]) -> list[Piece]:
    """All query rows of the listed heads, in order."""
    layout, offset = inputs.layout, inputs.k.shape[2] - inputs.q.shape[2]
    assert layout is not None
    q, kv = take_heads(inputs.q, heads), kv_heads(inputs, heads)
    k, v = of_heads(layout.keys(inputs.k, 2, False), layout.keys(inputs.v, 2, False), kv)
    if layout.window is not None:
        return _windowed(inputs, q, k, v, layout.text, layout.window)
    pieces, texts, seen = [], [], 0
    for first, last, visual in layout.runs:
        seen += 0 if visual else last - first
        if last <= offset:
            continue
        start, end = max(first - offset, 0), last - offset
        if not visual:
            texts.append((start, end))
        elif not seen:
            pieces.append(Piece(start, end, None, None))
        else:  # every row of a visual run sees the same text keys: no mask
            seen_k, seen_v = k[:, :, :seen], v[:, :, :seen]
            pieces.append(
                Piece(start, end, *attention_with_lse(q[:, :, start:end], seen_k, seen_v, inputs.scale, False))
            )
    return sorted(pieces + _text_rows(q, k, v, texts, inputs.scale))


def _text_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, runs: list[tuple[int, int]], scale: float
) -> list[Piece]:
    """The text rows of a call, which are the last text keys, in one go."""
    if not runs:
        return []
    new = sum(b - a for a, b in runs)
    rows = q if new == q.shape[2] else torch.cat([q[:, :, a:b] for a, b in runs], 2)
    out, lse = causal_tail(rows, k, v, k.shape[2] - new, scale)
    sizes = [b - a for a, b in runs]
    parts = zip(runs, out.split(sizes, 2), lse.split(sizes, 2), strict=True)
    return [Piece(a, b, o, row_lse) for (a, b), o, row_lse in parts]


def _windowed(
    inputs: AttentionInputs, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, places: torch.Tensor, window: int
) -> list[Piece]:
    """All rows, each of which sees the last `window` keys; of these k and v hold those at `places`."""
    rows, keys = inputs.q.shape[2], inputs.k.shape[2]
    own = torch.arange(keys - rows, keys, device=q.device)
    starts = torch.arange(0, rows, BLOCK)
    ends = (starts + BLOCK).clamp_max(rows)
    lowest = torch.searchsorted(places, own[starts] - window, right=True).tolist()
    highest = torch.searchsorted(places, own[ends - 1], right=True).tolist()
    results = []
    for a, b, low, high in zip(starts.tolist(), ends.tolist(), lowest, highest, strict=True):
        if low == high:
            results.append(Piece(a, b, None, None))
            continue
        row, key = own[a:b, None], places[low:high]
        seen = (key <= row) & (key > row - window)
        results.append(
            Piece(a, b, *masked_with_lse(q[:, :, a:b], k[:, :, low:high], v[:, :, low:high], inputs.scale, seen))
        )
    return results


def joined(pieces: list[Piece], q: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (B, h, Sq, Dv) and lse (B, h, Sq), -inf for rows that see no text; q (B, h, Sq, D) for shape and type."""
    only = pieces[0]
    if len(pieces) == 1 and only.out is not None and only.lse is not None:
        return only.out, only.lse
    out = q.new_empty(*q.shape[:3], channels)
    lse = q.new_empty(q.shape[:3], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    for piece in pieces:
        rows = slice(piece.start, piece.end)
        out[:, :, rows] = 0 if piece.out is None else piece.out
        lse[:, :, rows] = -torch.inf if piece.lse is None else piece.lse
    return out, lse


def causal_tail(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, old: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of the last rows, with lse; the first `old` keys stand before all of them."""
    if not old:
        return attention_with_lse(q, k, v, scale, q.shape[2] > 1)
    a, lse_a = attention_with_lse(q, k[:, :, :old], v[:, :, :old], scale, False)
    b, lse_b = attention_with_lse(q, k[:, :, old:], v[:, :, old:], scale, q.shape[2] > 1)
    share = torch.sigmoid(lse_b - lse_a)[..., None].to(a.dtype)
    return torch.lerp(a, b, share), torch.logaddexp(lse_a, lse_b)


def attention_with_lse(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    is_causal: bool,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and its log-sum-exp (natural log) from torch's fused kernels, without a score matrix.

    Args:
        q: (B, h, R, D).
        k, v: (B, g, T, D), T > 0 (the CPU kernel dies on zero keys), h a multiple of g.
        is_causal: row i sees keys up to i; needs R == T.
        bias: added to the scores, (R, T) in the dtype of q, or None.

    Returns:
        output (B, h, R, D) in the dtype of q and lse (B, h, R), float32 or, for float64, float64.
    """
    if q.device.type == "cpu":
        if k.shape[2] <= FEW and not is_causal and bias is None and q.dtype in (torch.float32, torch.float64):
            return _few_keys(q, k, v, scale)
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash(q, k, v, 0.0, is_causal, attn_mask=bias, scale=scale)
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    if bias is None and q.dtype in (torch.float16, torch.bfloat16):
        result = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal, False, scale=scale)
    else:
        bias = bias if bias is None else _aligned(bias).expand(*q.shape[:2], -1, -1)
        result = torch.ops.aten._scaled_dot_product_efficient_attention(
            q, k, v, bias, True, 0.0, is_causal, scale=scale
        )
    return result[0], result[1][..., : q.shape[2]]  # the efficient kernel pads the rows of lse


def masked_with_lse(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same where row r sees the keys seen[r], bool (R, T); a row that sees none has any output and lse -inf."""
    blind = ~seen.any(-1)
    bias = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill_(~(seen | blind[:, None]), -torch.inf)
    out, lse = attention_with_lse(q, k, v, scale, False, bias)
    return out, lse.masked_fill(blind, -torch.inf)


def _aligned(bias: torch.Tensor) -> torch.Tensor:
    """The same numbers in rows that begin at multiples of 16 numbers, as CUDA's kernel wants them."""
    return torch.nn.functional.pad(bias, (0, -bias.shape[-1] % 16))[:, : bias.shape[-1]]


def _few_keys(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    grouped = q.unflatten(1, (k.shape[1], -1))  # (B, g, G, R, D)
    scores = (k[:, :, None] @ grouped.transpose(3, 4)).mul_(scale)  # (B, g, G, T, R): sums over T run along R
    top = scores.amax(3, keepdim=True)
    weights = scores.sub_(top).exp_()
    total = weights.sum(3, keepdim=True)
    out = (weights.div_(total).transpose(3, 4) @ v[:, :, None]).flatten(1, 2)
    return out, total.log_().add_(top)[..., 0, :].flatten(1, 2)


def kv_heads(inputs: AttentionInputs, heads: list[int]) -> list[int]:
    """The KV head that serves each of the listed heads."""
    group = inputs.q.shape[1] // inputs.k.shape[1]
    return [h // group for h in heads]


def of_heads(k: torch.Tensor, v: torch.Tensor, kv: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values for the listed heads: grouped as they are if the kernels can group them, else one per head."""
    index = sorted(set(kv)) if even(kv) else kv
    return take_heads(k, index), take_heads(v, index)


def even(kv: list[int]) -> bool:
    """True if every KV head that occurs serves equally many query heads."""
    used = sorted(set(kv))
    return kv == [g for g in used for _ in range(len(kv) // len(used))]


def take_heads(x: torch.Tensor, index: list[int]) -> torch.Tensor:
    """x[:, index], as a view where that is possible."""
    runs = neighbours(index)
    return x[:, runs[0]] if len(runs) == 1 else torch.cat([x[:, run] for run in runs], 1)


def neighbours(heads: list[int]) -> list[slice]:
    """Ascending heads as slices of neighbours."""
    starts = [i for i in range(len(heads)) if i == 0 or heads[i] != heads[i - 1] + 1]
    return [slice(heads[a], heads[b - 1] + 1) for a, b in zip(starts, [*starts[1:], len(heads)], strict=False)]
