"""What one engine step has to compute, worked out once on the host and shared by all layers of a KV-cache group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from ....patches.attention_inputs import Layout
from ..cache.spans import RequestInfo, Span, is_hole, last_visual, visual_mask
from ..kernels.torch_prefill import VisualRows, visible_counts


class QuerySpan(NamedTuple):
    """The new tokens of one request in a step: flat rows start..end-1 are its positions past..total-1."""

    row: int
    request: RequestInfo
    start: int
    end: int
    past: int
    total: int


@dataclass(frozen=True)
class PrefillChunk:
    """A prefill chunk of one request with images.

    Attributes:
        query: its rows.
        text: slots of cached text keys: blocks and offsets, int64 (T,) each.
        carry: slot of the running summary in front of the chunk, (block, offset) 0-d tensors, or None.
        layout: of the keys [cached text, carry, chunk].
        visual: visual rows within the chunk, int64 (n,), or a slice if they are one run.
        kept: rows that leave their running summary in the cache, int64 (w,): those that text, a later chunk or another request
            that shares the prefix go on from.
        slots: where: blocks and offsets, int64 (w,) each.
    """

    query: QuerySpan
    text: tuple[torch.Tensor, torch.Tensor]
    carry: tuple[torch.Tensor, torch.Tensor] | None
    layout: Layout
    visual: torch.Tensor | slice
    kept: torch.Tensor
    slots: tuple[torch.Tensor, torch.Tensor]
    _seen: list[VisualRows] = field(default_factory=list, compare=False)

    def counts(self) -> tuple[torch.Tensor, int]:
        """Visual keys that each row sees, int64 (n,), and those in front of the rows; the carry is one of them."""
        return visible_counts(self.layout, self.query.end - self.query.start)

    def seen(self, make: Callable[[], torch.Tensor]) -> VisualRows:
        """Of the scores (N,) of the carry and the visual rows, which `make` gives; worked out once for all layers."""
        if not self._seen:
            self._seen.append(VisualRows.of(make()[None], self.layout, self.query.end - self.query.start))
        return self._seen[0]


class RequestKeys(NamedTuple):
    """What the layers of a step share about the keys of one request.

    Attributes:
        slots: of all its tokens so far: blocks and offsets, int64 (K,) each.
        prior: (1, K) float32, NaN on text.
        layout: where its visual keys lie; None if it has none.
        seen: what the step's rows see of them.
    """

    slots: tuple[torch.Tensor, torch.Tensor]
    prior: torch.Tensor
    layout: Layout | None
    seen: VisualRows | None


def make_request_keys(slots: tuple[torch.Tensor, torch.Tensor], prior: torch.Tensor, rows: int) -> RequestKeys:
    """Of one request, from the prior (1, K) of its tokens, the last `rows` of which are new."""
    layout = Layout.of(~prior.isnan())
    if layout is None or not len(layout.visual):
        return RequestKeys(slots, prior, None, None)
    return RequestKeys(slots, prior, layout, VisualRows.of(layout.keys(prior, 1, True), layout, rows))


def query_spans(requests: Sequence[RequestInfo], starts: Sequence[int], totals: Sequence[int]) -> list[QuerySpan]:
    """Requests with new tokens. `starts` are flat start rows (n + 1), `totals` sequence lengths after the step."""
    results = []
    for row, request in enumerate(requests):
        start, end, total = starts[row], starts[row + 1], totals[row]
        if end > start:
            results.append(QuerySpan(row, request, start, end, total - (end - start), total))
    return results


def sees_images(query: QuerySpan) -> bool:
    """True if a row of this step sees a visual key."""
    return bool(query.request.spans) and query.request.spans[0][0] < query.total


def make_prefill_chunk(query: QuerySpan, table: torch.Tensor, size: int) -> PrefillChunk:
    """Index tensors of one prefill chunk."""
    spans, past, total, device = query.request.spans, query.past, query.total, table.device
    mask = visual_mask(spans, total)
    row = table[query.row].long()
    text = np.flatnonzero(~mask[:past])
    carry = last_visual(spans, past)
    new = np.flatnonzero(mask[past:])
    at = new + past
    one_run = len(new) > 0 and new[-1] - new[0] + 1 == len(new)
    read = ((at + 1) % size == 0) | (at + 1 == total) | ~np.append(mask, False)[at + 1]
    keep = read.copy()
    keep[read] = [_is_kept(spans, past, total, size, int(j)) for j in at[read]]
    kept = at[keep]
    runs = _runs(len(text), carry >= 0, mask[past:])
    return PrefillChunk(
        query=query,
        text=_slots(row, text, size),
        carry=None if carry < 0 else (row[carry // size], torch.tensor(carry % size, device=device)),
        layout=_layout(runs, device),
        visual=slice(int(new[0]), int(new[-1]) + 1) if one_run else torch.from_numpy(new).to(device),
        kept=torch.from_numpy(new[keep]).to(device),
        slots=_slots(row, kept, size),
    )


def _is_kept(spans: Sequence[Span], past: int, total: int, size: int, position: int) -> bool:
    """Whether the block of a visual token is real: no hole, or begun by an earlier chunk, or at the end of this one."""
    block = position // size
    begun = past % size and block == past // size
    return bool(begun) or block == (total - 1) // size or not is_hole(spans, size, block)


def _runs(text: int, carry: bool, mask: np.ndarray) -> list[tuple[int, int, bool]]:
    """Runs of the keys [cached text, carry, chunk]; the carry counts as a visual key."""
    kinds = np.concatenate([np.zeros(text, dtype=bool), np.ones(int(carry), dtype=bool), mask])
    borders = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    return [(a, b, bool(kinds[a])) for a, b in zip(borders, borders[1:], strict=False) if b > a]


def _layout(runs: list[tuple[int, int, bool]], device: torch.device) -> Layout:
    def index(visual: bool) -> torch.Tensor:
        results = [torch.arange(a, b, device=device) for a, b, kind in runs if kind == visual]
        return torch.cat(results) if results else torch.zeros(0, dtype=torch.int64, device=device)

    return Layout(tuple(runs), index(False), index(True))


def _slots(row: torch.Tensor, positions: np.ndarray, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    at = torch.from_numpy(positions.astype(np.int64)).to(row.device)
    return row[at // size], at % size
