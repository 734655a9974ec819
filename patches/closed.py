"""SAP attention in closed form: no score of a patched head on a visual key is ever computed.

With lambda = 1 the visual part of a patched head does not depend on the query. Let Z = sum exp(p_j) and
m = sum exp(p_j) v_j / Z over the visual keys that a row may see, and (o, lse) ordinary attention over its text keys:

    out = lerp(m, o, sigmoid(lse - log Z))

Inside an image Z and m are prefix sums: O(S d) where scores would cost O(S^2 d). See DESIGN: "efficient SAP".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .eager import attend, raw_scores
from .job import Job, Layout
from .summary import mix, running_summary, visual_summary
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


def closed_attention(job: Job) -> torch.Tensor:
    """Closed form for static heads, blend 1, plain causal mask and one layout for the whole batch.

    Rows may be all, or all but the visual rows (`after_image`). Needs ``job.layout``; carries no gradient.

    Returns:
        (B, H, Sq, Dv).
    """
    heads = job.head_list()
    if len(heads) == job.q.shape[1]:
        return patched_heads(job, heads)
    out = torch.empty(*job.q.shape[:3], job.v.shape[-1], dtype=job.q.dtype, device=job.q.device)
    other_heads(job, heads, out)
    put_heads(out, heads, patched_heads(job, heads))
    return out


def other_heads(job: Job, heads: list[int], out: torch.Tensor) -> None:
    """Ordinary attention of all heads but the listed ones, into `out` (B, H, Sq, Dv)."""
    group = job.q.shape[1] // job.k.shape[1]
    for g in range(job.k.shape[1]):
        rest = [h for h in range(g * group, (g + 1) * group) if h not in heads]
        for run in neighbours(rest):  # views of q, no copies
            out[:, run] = _ordinary(job.q[:, run], job.k[:, g : g + 1], job.v[:, g : g + 1], job.scale)


def patched_heads(job: Job, heads: list[int]) -> torch.Tensor:
    """All rows of the listed heads alone, (B, len(heads), Sq, Dv)."""
    layout, offset = job.layout, job.k.shape[2] - job.q.shape[2]
    assert layout is not None
    q, kv = take_heads(job.q, heads), kv_heads(job, heads)
    level = None if job.scores.level is None else job.scores.level[heads]
    if q.shape[2] == 1:
        return _decode(job, q, kv, level, layout)
    out, lse = joined(text_pieces(job, heads), q, job.v.shape[-1])
    _merge_visual(out, lse, job, kv, level, layout, offset)
    if job.rows is not None:  # after_image: visual rows keep ordinary attention
        for start, end in _visual_rows(layout, offset):
            k, v = job.k[:, :, : offset + end], job.v[:, :, : offset + end]
            out[:, :, start:end] = _ordinary(q[:, :, start:end], *of_heads(k, v, kv), job.scale)
    return out


def _decode(job: Job, q: torch.Tensor, kv: list[int], level: torch.Tensor | None, layout: Layout) -> torch.Tensor:
    """One query row: text keys are read, visual keys are not, visual values only if their summary is unknown."""
    mean, log_mass = job.summary or visual_summary(job.scores.of_groups(), job.v, layout)
    if even(kv):
        mean = take_heads(mean, sorted(set(kv)))[:, :, None].expand(-1, -1, len(kv) // len(set(kv)), -1).flatten(1, 2)
    else:
        mean = take_heads(mean, kv)
    mean, log_mass = mean[:, :, None], log_mass[:, None] if log_mass.dim() == 1 else log_mass[:, kv]
    if level is not None:
        log_mass = log_mass + level
    out = lse = None
    for k, v in _text_pieces(job.k, job.v, layout):
        part, part_lse = attention_with_lse(q, *of_heads(k, v, kv), job.scale, False)
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
    out: torch.Tensor,
    lse: torch.Tensor,
    job: Job,
    kv: list[int],
    level: torch.Tensor | None,
    layout: Layout,
    offset: int,
) -> None:
    """Mix the visual mean into `out` (B, h, Sq, Dv), in place."""
    used = sorted(set(kv))
    mean, log_mass = job.running or (None, None)
    if mean is None or log_mass is None:
        v = layout.keys(job.v, 2, True)
        v = v if len(used) == v.shape[1] else v[:, used]
        scores = layout.keys(job.scores.of_groups(), -1, True)
        mean, log_mass = running_summary(scores if scores.dim() == 2 else scores[:, used], v)
    elif len(used) < mean.shape[1]:
        mean = mean[:, used]
    at = [used.index(g) for g in kv]
    seen = 0
    for start, end, visual in layout.runs:
        seen += end - start if visual else 0
        a, b = max(start - offset, 0), end - offset
        if b <= 0 or not seen:
            continue
        # rows of an image run along the prefix sums, text rows all see the last sum before them
        span = slice(seen - (b - a), seen) if visual else slice(seen - 1, seen)
        total = log_mass[:, None, span] if log_mass.dim() == 2 else log_mass[:, at, span]
        total = total if level is None else total + level[None, :, None]
        share = torch.sigmoid(lse[:, :, a:b] - total)[..., None]
        _lerp_groups(out[:, :, a:b], mean[:, :, span], share, at)


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


def _ordinary(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Ordinary causal attention; q's last row stands at the last key."""
    rows, keys = q.shape[2], k.shape[2]
    if rows == 1 and q.device.type == "cpu":  # twice as fast as SDPA's grouped heads, measured
        return attend(raw_scores(q, k, scale), None, v)[0]
    if rows < keys:  # in two parts: a mask would cost rows x keys of memory
        return causal_tail(q, k, v, keys - rows, scale)[0]
    return F.scaled_dot_product_attention(q, k, v, is_causal=rows > 1, scale=scale, enable_gqa=k.shape[1] != q.shape[1])
