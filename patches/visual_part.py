"""What query rows see of the visual keys, as summaries: the other half of the closed form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from .attention_inputs import AttentionInputs, Layout
from .summary import running_summary, whole_summaries


class Sight(NamedTuple):
    """What the neighbouring query rows start..end-1 of a call see of the visual keys.

    Attributes:
        mean: (B, g, R, Dv), R the rows or, where all see the same, 1.
        log_mass: (B, R), or (B, g, R) where KV heads differ.
    """

    start: int
    end: int
    mean: torch.Tensor
    log_mass: torch.Tensor


def visual_sights(inputs: AttentionInputs, used: list[int]) -> Iterator[Sight]:
    """Of all query rows that see visual keys; `used` are the KV heads g that are asked for."""
    assert inputs.layout is not None
    if inputs.layout.window is not None:
        return _in_window(inputs, used, inputs.layout, inputs.layout.window)
    return _from_the_start(inputs, used, inputs.layout)


def _from_the_start(inputs: AttentionInputs, used: list[int], layout: Layout) -> Iterator[Sight]:
    """Rows that see all visual keys up to some place, which is their own or the end of a run."""
    offset, seen = inputs.k.shape[2] - inputs.q.shape[2], 0
    mean, log_mass = _sums(inputs, used, layout)
    for start, end, visual in layout.runs:
        if visual:
            seen += 1 if layout.whole else end - start
        a, b = max(start - offset, 0), end - offset
        if b <= 0 or not seen:
            continue
        # rows of an image run along the prefix sums; text rows, and rows that see images whole, see one sum
        span = slice(seen - (b - a), seen) if visual and not layout.whole else slice(seen - 1, seen)
        yield Sight(a, b, mean[:, :, span], log_mass[..., span])


def _sums(inputs: AttentionInputs, used: list[int], layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log mass up to every visual key, or up to the end of every run where rows see runs whole."""
    if inputs.running is not None:
        mean, log_mass = inputs.running
        return (mean if len(used) == mean.shape[1] else mean[:, used]), _of(log_mass, used)
    scores, v = _visual(inputs, used, layout)
    if layout.whole:
        return whole_summaries(scores, v, [b - a for a, b, visual in layout.runs if visual])
    return running_summary(scores, v)


def _in_window(inputs: AttentionInputs, used: list[int], layout: Layout, window: int) -> Iterator[Sight]:
    """Rows that see the visual keys from some place to the end of a run: sums that run backwards from there.

    Such a sum is no difference of two sums, so nothing cancels. Rows from one visual run to the next share its end.
    """
    rows, keys = inputs.q.shape[2], inputs.k.shape[2]
    scores, v = _visual(inputs, used, layout)
    firsts = _first_seen(layout, range(keys - rows, keys), window)
    begins = [max(a - (keys - rows), 0) for a, _, visual in layout.runs if visual] + [rows]
    end = 0
    for n, size in enumerate(b - a for a, b, visual in layout.runs if visual):
        end += size
        # `firsts` ascend: the rows that still see a key of this run, or of one before it, come first
        at = [end - 1 - first for first in firsts[begins[n] : begins[n + 1]] if first < end]
        if at:
            lowest = end - 1 - at[0]
            mean, log_mass = running_summary(scores[..., lowest:end].flip(-1), v[:, :, lowest:end].flip(2))
            index = torch.tensor(at, device=v.device)
            yield Sight(begins[n], begins[n] + len(at), mean[:, :, index], log_mass[..., index])


def _first_seen(layout: Layout, places: range, window: int) -> list[int]:
    """The first visual key that a row at each place sees, by its number among the visual keys; their number if it sees none."""
    before = [0]
    for a, b, visual in layout.runs:
        before += [before[-1] + i * visual for i in range(1, b - a + 1)]
    return [before[max(place - window + 1, 0)] for place in places]


def _visual(inputs: AttentionInputs, used: list[int], layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (B, N) or (B, g, N) and values (B, g, N, Dv) of the visual keys."""
    v = layout.keys(inputs.v, 2, True)
    return _of(layout.keys(inputs.scores.of_groups(), -1, True), used), v if len(used) == v.shape[1] else v[:, used]


def _of(x: torch.Tensor, used: list[int]) -> torch.Tensor:
    """(B, N) as it is; of (B, Hkv, N) the used KV heads."""
    return x if x.dim() == 2 or len(used) == x.shape[1] else x[:, used]
