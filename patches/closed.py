"""SAP attention in closed form: no score of a patched head on a visual key is ever computed.

With lambda = 1 the visual part of a patched head does not depend on the query. Let Z = sum exp(p_j) and
m = sum exp(p_j) v_j / Z over the visual keys that a row may see, and (o, lse) ordinary attention over its text keys:

    out = lerp(m, o, sigmoid(lse - log Z))

Inside an image Z and m are prefix sums: O(S d) where scores would cost O(S^2 d). Where image tokens see each other both ways,
all rows of an image share one sum. See DESIGN: "efficient SAP".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .anymask import masked
from .attention_inputs import AttentionInputs, Layout
from .eager import attend, raw_scores
from .summary import mix, visual_summary
from .text_part import (
    attention_with_lse,
    causal_tail,
    even,
    joined,
    kv_heads,
    neighbours,
    of_heads,
    take_heads,
    text_pieces,
)
from .visual_part import visual_sights


def closed_attention(inputs: AttentionInputs) -> torch.Tensor:
    """Closed form for static heads, blend 1, and one layout for the whole batch that tells what rows see.

    Rows may be all, or all but the visual rows (`after_image`). Needs ``inputs.layout``; carries no gradient.

    Returns:
        (B, H, Sq, Dv).
    """
    assert inputs.layout is not None
    heads = inputs.head_list() if len(inputs.layout.visual) else []  # a window may have left all images behind
    if len(heads) == inputs.q.shape[1]:
        return patched_heads(inputs, heads)
    out = torch.empty(*inputs.q.shape[:3], inputs.v.shape[-1], dtype=inputs.q.dtype, device=inputs.q.device)
    other_heads(inputs, heads, out)
    if heads:
        put_heads(out, heads, patched_heads(inputs, heads))
    return out


def other_heads(inputs: AttentionInputs, heads: list[int], out: torch.Tensor) -> None:
    """Ordinary attention of all heads but the listed ones, into `out` (B, H, Sq, Dv)."""
    group = inputs.q.shape[1] // inputs.k.shape[1]
    for g in range(inputs.k.shape[1]):
        rest = [h for h in range(g * group, (g + 1) * group) if h not in heads]
        for run in neighbours(rest):  # views of q, no copies
            out[:, run] = _ordinary(
                inputs.q[:, run], inputs.k[:, g : g + 1], inputs.v[:, g : g + 1], inputs.scale, inputs.mask
            )


def patched_heads(inputs: AttentionInputs, heads: list[int]) -> torch.Tensor:
    """All rows of the listed heads alone, (B, len(heads), Sq, Dv)."""
    layout, offset = inputs.layout, inputs.k.shape[2] - inputs.q.shape[2]
    assert layout is not None
    q, kv = take_heads(inputs.q, heads), kv_heads(inputs, heads)
    level = None if inputs.scores.level is None else inputs.scores.level[heads]
    if q.shape[2] == 1 and layout.window is None:
        return _decode(inputs, q, kv, level, layout)
    out, lse = joined(text_pieces(inputs, heads), q, inputs.v.shape[-1])
    _merge_visual(out, lse, inputs, kv, level)
    if inputs.rows is not None:  # after_image: visual rows keep ordinary attention
        for start, end in _visual_rows(layout, offset):
            k, v = of_heads(inputs.k[:, :, : offset + end], inputs.v[:, :, : offset + end], kv)
            mask = None if inputs.mask is None else inputs.mask[..., start:end, : offset + end]
            out[:, :, start:end] = _ordinary(q[:, :, start:end], k, v, inputs.scale, mask)
    return out


def _decode(
    inputs: AttentionInputs, q: torch.Tensor, kv: list[int], level: torch.Tensor | None, layout: Layout
) -> torch.Tensor:
    """One query row: text keys are read, visual keys are not, visual values only if their summary is unknown."""
    mean, log_mass = inputs.summary or visual_summary(inputs.scores.of_groups(), inputs.v, layout)
    if even(kv):
        mean = take_heads(mean, sorted(set(kv)))[:, :, None].expand(-1, -1, len(kv) // len(set(kv)), -1).flatten(1, 2)
    else:
        mean = take_heads(mean, kv)
    mean, log_mass = mean[:, :, None], log_mass[:, None] if log_mass.dim() == 1 else log_mass[:, kv]
    if level is not None:
        log_mass = log_mass + level
    out = lse = None
    for k, v in _text_pieces(inputs.k, inputs.v, layout):
        part, part_lse = attention_with_lse(q, *of_heads(k, v, kv), inputs.scale, False)
        if out is None or lse is None:
            out, lse = part, part_lse
        else:
            out = mix(out, part, part_lse - lse)
            lse = torch.logaddexp(lse, part_lse)
    if out is None or lse is None:
        return mean.to(q.dtype)
    return mix(mean, out, lse - log_mass[..., None]).to(q.dtype)


def _text_pieces(k: torch.Tensor, v: torch.Tensor, layout: Layout) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Text keys as a few views of the cache, or gathered if they lie in many pieces."""
    runs = [(start, end) for start, end, visual in layout.runs if not visual]
    if len(runs) <= 4:
        return [(k[:, :, a:b], v[:, :, a:b]) for a, b in runs]
    return [(k.index_select(2, layout.text), v.index_select(2, layout.text))]


def _merge_visual(
    out: torch.Tensor, lse: torch.Tensor, inputs: AttentionInputs, kv: list[int], level: torch.Tensor | None
) -> None:
    """Mix the visual mean into `out` (B, h, Sq, Dv), in place."""
    used = sorted(set(kv))
    at = [used.index(g) for g in kv]
    for start, end, mean, log_mass in visual_sights(inputs, used):
        total = log_mass[:, None] if log_mass.dim() == 2 else log_mass[:, at]
        total = total if level is None else total + level[None, :, None]
        share = torch.sigmoid(lse[:, :, start:end] - total)[..., None]
        _lerp_groups(out[:, :, start:end], mean, share, at)


def _lerp_groups(out: torch.Tensor, mean: torch.Tensor, share: torch.Tensor, at: list[int]) -> None:
    """out = mean + share (out - mean) in place, mean (B, g, R or 1, Dv) serving heads `at` of out (B, h, R, Dv)."""
    exact = out.dtype in (torch.float32, torch.float64)
    for g in sorted(set(at)):
        heads = [i for i, x in enumerate(at) if x == g]
        span = slice(heads[0], heads[-1] + 1)  # heads are ascending, so those of one group are neighbours
        m, part, s = mean[:, g : g + 1], out[:, span], share[:, span]
        if exact:
            part.sub_(m).mul_(s.to(out.dtype)).add_(m)
        else:
            part.copy_(torch.lerp(m, part.to(m.dtype), s.to(m.dtype)))


def _visual_rows(layout: Layout, offset: int) -> list[tuple[int, int]]:
    return [(max(a - offset, 0), b - offset) for a, b, visual in layout.runs if visual and b > offset]


def put_heads(out: torch.Tensor, heads: list[int], part: torch.Tensor) -> None:
    """out[:, heads] = part, by slices of neighbouring heads: far cheaper than indexed writing."""
    start = 0
    for run in neighbours(heads):
        count = run.stop - run.start
        out[:, run] = part[:, start : start + count]
        start += count


def _ordinary(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """Ordinary attention; q's last row stands at the last key. Mask (B or 1, 1, Sq, K) bool, or None: causal."""
    rows, keys = q.shape[2], k.shape[2]
    if rows == 1 and q.device.type == "cpu":  # twice as fast as SDPA's grouped heads, measured
        return attend(raw_scores(q, k, scale), mask, v)[0]
    if mask is not None:
        return masked(q, k, v, scale, mask)
    if rows < keys:  # in two parts: a mask would cost rows x keys of memory
        return causal_tail(q, k, v, keys - rows, scale)[0]
    return F.scaled_dot_product_attention(q, k, v, is_causal=rows > 1, scale=scale, enable_gqa=k.shape[1] != q.shape[1])
