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


def closed_attention(job: Job) -> torch.Tensor:
    """Closed form for static heads, blend 1, plain causal mask and one layout for the whole batch.

    Rows may be all, or all but the visual rows (`after_image`). Needs ``job.layout``; carries no gradient.

    Returns:
        (B, H, Sq, Dv).
    """
    heads = job.head_list()
    num_heads = job.q.shape[1]
    if len(heads) == num_heads:
        return patched_heads(job, heads)
    out = torch.empty(*job.q.shape[:3], job.v.shape[-1], dtype=job.q.dtype, device=job.q.device)
    patched = set(heads)
    group = num_heads // job.k.shape[1]
    for g in range(job.k.shape[1]):
        rest = [h for h in range(g * group, (g + 1) * group) if h not in patched]
        for run in neighbours(rest):  # views of q, no copies
            out[:, run] = _ordinary(job.q[:, run], job.k[:, g : g + 1], job.v[:, g : g + 1], job.scale)
    put_heads(out, heads, patched_heads(job, heads))
    return out


def patched_heads(job: Job, heads: list[int]) -> torch.Tensor:
    """All rows of the listed heads alone, (B, len(heads), Sq, Dv)."""
    layout, offset = job.layout, job.k.shape[2] - job.q.shape[2]
    assert layout is not None
    q = _heads(job.q, heads)
    group = job.q.shape[1] // job.k.shape[1]
    kv = [h // group for h in heads]
    level = None if job.scores.level is None else job.scores.level[heads]
    if q.shape[2] == 1:
        return _decode(job, q, kv, level, layout)
    out, lse = _text_part(q, job.k, job.v, kv, layout, offset, job.scale)
    _merge_visual(out, lse, job, kv, level, layout, offset)
    if job.rows is not None:  # after_image: visual rows keep ordinary attention
        for start, end in _visual_rows(layout, offset):
            k, v = job.k[:, :, : offset + end], job.v[:, :, : offset + end]
            out[:, :, start:end] = _ordinary(q[:, :, start:end], *_of_heads(k, v, kv, q.shape[1]), job.scale)
    return out


def _decode(job: Job, q: torch.Tensor, kv: list[int], level: torch.Tensor | None, layout: Layout) -> torch.Tensor:
    """One query row: text keys are read, visual keys are not, visual values only if their summary is unknown."""
    mean, log_mass = job.summary or visual_summary(job.scores.prior, job.v, layout)
    if _even(kv):
        mean = _heads(mean, sorted(set(kv)))[:, :, None].expand(-1, -1, len(kv) // len(set(kv)), -1).flatten(1, 2)
    else:
        mean = _heads(mean, kv)
    mean, log_mass = mean[:, :, None], log_mass[:, None]
    if level is not None:
        log_mass = log_mass + level
    out = lse = None
    for k, v in _text_pieces(job.k, job.v, layout):
        part, part_lse = attention_with_lse(q, *_of_heads(k, v, kv, q.shape[1]), job.scale, False)
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


def _text_part(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kv: list[int], layout: Layout, offset: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of every row on the text keys that it may see: output (B, h, Sq, Dv) and lse (B, h, Sq), -inf if none."""
    k_text, v_text = _of_heads(layout.keys(k, 2, False), layout.keys(v, 2, False), kv, q.shape[1])
    out = q.new_empty(*q.shape[:3], v.shape[-1])
    lse = q.new_empty(q.shape[:3], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    seen = 0
    for start, end, visual in layout.runs:
        seen += 0 if visual else end - start
        if not visual or end <= offset:
            continue
        a, b = max(start - offset, 0), end - offset
        if not seen:
            out[:, :, a:b], lse[:, :, a:b] = 0, -torch.inf
        else:  # every row of a visual run sees the same text keys: no mask
            out[:, :, a:b], lse[:, :, a:b] = attention_with_lse(
                q[:, :, a:b], k_text[:, :, :seen], v_text[:, :, :seen], scale, False
            )
    pieces = [(max(a - offset, 0), b - offset) for a, b, visual in layout.runs if not visual and b > offset]
    if pieces:
        new = sum(b - a for a, b in pieces)
        whole = new == q.shape[2]
        q_text = q if whole else torch.cat([q[:, :, a:b] for a, b in pieces], 2)
        o, row_lse = _causal_tail(q_text, k_text, v_text, seen - new, scale)
        if whole:
            return o, row_lse
        start = 0
        for a, b in pieces:
            out[:, :, a:b], lse[:, :, a:b] = o[:, :, start : start + b - a], row_lse[:, :, start : start + b - a]
            start += b - a
    return out, lse


def _causal_tail(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, old: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of the last rows; the first `old` keys stand before all of them."""
    if not old:
        return attention_with_lse(q, k, v, scale, q.shape[2] > 1)
    a, lse_a = attention_with_lse(q, k[:, :, :old], v[:, :, :old], scale, False)
    b, lse_b = attention_with_lse(q, k[:, :, old:], v[:, :, old:], scale, q.shape[2] > 1)
    share = torch.sigmoid(lse_b - lse_a)[..., None].to(a.dtype)
    return torch.lerp(a, b, share), torch.logaddexp(lse_a, lse_b)


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
        mean, log_mass = running_summary(layout.keys(job.scores.prior, 1, True), v)
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
        total = log_mass[:, None, span]
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


def _of_heads(k: torch.Tensor, v: torch.Tensor, kv: list[int], heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values for the listed heads: grouped as they are if the kernels can group them, else one per head."""
    used = sorted(set(kv))
    if not _even(kv):
        return _heads(k, kv), _heads(v, kv)
    return _heads(k, used), _heads(v, used)


def _even(kv: list[int]) -> bool:
    """True if every KV head that occurs serves equally many query heads."""
    used = sorted(set(kv))
    return kv == [g for g in used for _ in range(len(kv) // len(used))]


def _slice(index: list[int]) -> slice | list[int]:
    """A slice (a view, no copy) where the index is a plain range."""
    return slice(index[0], index[-1] + 1) if index[-1] - index[0] + 1 == len(index) else index


def _heads(x: torch.Tensor, index: list[int]) -> torch.Tensor:
    """x[:, index], as a view where that is possible."""
    found = _slice(index)
    if isinstance(found, slice):
        return x[:, found]
    return torch.cat([x[:, run] for run in neighbours(index)], 1)


def put_heads(out: torch.Tensor, heads: list[int], part: torch.Tensor) -> None:
    """out[:, heads] = part, by slices of neighbouring heads: far cheaper than indexed writing."""
    start = 0
    for run in neighbours(heads):
        count = run.stop - run.start
        out[:, run] = part[:, start : start + count]
        start += count


def neighbours(heads: list[int]) -> list[slice]:
    """Ascending heads as slices of neighbours."""
    starts = [i for i in range(len(heads)) if i == 0 or heads[i] != heads[i - 1] + 1]
    return [slice(heads[a], heads[b - 1] + 1) for a, b in zip(starts, [*starts[1:], len(heads)], strict=False)]


def _ordinary(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Ordinary causal attention; q's last row stands at the last key."""
    rows, keys = q.shape[2], k.shape[2]
    if rows == 1 and q.device.type == "cpu":  # twice as fast as SDPA's grouped heads, measured
        return attend(raw_scores(q, k, scale), None, v)[0]
    if rows < keys:  # in two parts: a mask would cost rows x keys of memory
        return _causal_tail(q, k, v, keys - rows, scale)[0]
    return F.scaled_dot_product_attention(q, k, v, is_causal=rows > 1, scale=scale, enable_gqa=k.shape[1] != q.shape[1])


def attention_with_lse(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, is_causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and its log-sum-exp (natural log) from torch's fused kernels, without a score matrix.

    Args:
        q: (B, h, R, D).
        k, v: (B, g, T, D), T > 0 (the CPU kernel dies on zero keys), h a multiple of g.
        is_causal: row i sees keys up to i; needs R == T.

    Returns:
        output (B, h, R, D) in the dtype of q and lse (B, h, R), float32 or, for float64, float64.
    """
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal, scale=scale)
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    if q.dtype in (torch.float16, torch.bfloat16):
        found = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal, False, scale=scale)
    else:
        found = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, is_causal, scale=scale)
    return found[0], found[1][..., : q.shape[2]]  # the efficient kernel pads the rows of lse
