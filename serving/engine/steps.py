"""What one engine step has to compute, worked out once on the host and shared by all layers of a KV-cache group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ...patches.job import Layout
from ...patches.summary import Shares, running_shares
from .spans import Span, is_hole, last_visual, visual_mask


class Seat(NamedTuple):
    """One row of the batch: a request, where its images lie, and how long its prompt is."""

    request: str
    spans: tuple[Span, ...]
    prompt: int


class Part(NamedTuple):
    """The new tokens of one request in a step: flat rows start..end-1 are its positions past..total-1."""

    row: int
    seat: Seat
    start: int
    end: int
    past: int
    total: int


class Query(NamedTuple):
    """One query row that is computed by itself: flat row `at` at position `position` of a request."""

    row: int
    seat: Seat
    at: int
    position: int


@dataclass(frozen=True)
class Queries:
    """Query rows that need text keys and one summary each, as index tensors on the device.

    Attributes:
        at: flat rows, int64 (B,).
        blocks: cache blocks that hold text, int64 (B, M), padded with any block.
        hidden: slots of these blocks that are no text of the row, bool (B, M * block size).
        summary: cache slot of the last visual token in front of each row: blocks and offsets, int64 (B,) each.
        entries: the same rows on the host.
        lengths: keys of each row, int64 (B,), if `blocks` are all of its blocks in order, so that heads without a prior can
            be computed too; else None.
    """

    at: torch.Tensor
    blocks: torch.Tensor
    hidden: torch.Tensor
    summary: tuple[torch.Tensor, torch.Tensor]
    entries: tuple[Query, ...]
    lengths: torch.Tensor | None = None
    _whole: dict[int, tuple[torch.Tensor, torch.Tensor, Queries | None]] = field(default_factory=dict, compare=False)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Blocks, hidden slots (B, M, block size) and lengths, zeros if there are none, for compiled loops on CPUs."""
        lengths = self.blocks.new_zeros(len(self.blocks)) if self.lengths is None else self.lengths
        return self.blocks.numpy(), self.hidden.view(*self.blocks.shape, -1).numpy(), lengths.numpy()

    def whole_blocks(self, size: int) -> tuple[torch.Tensor, torch.Tensor, Queries | None]:
        """See `_whole_blocks`; worked out once for all layers."""
        if size not in self._whole:
            self._whole[size] = self._whole_blocks(size)
        return self._whole[size]

    def _whole_blocks(self, size: int) -> tuple[torch.Tensor, torch.Tensor, Queries | None]:
        """Blocks of text alone apart from blocks that text shares with an image.

        Text of a block stands at its front if the block is the one being filled; only then may it hold less than `size`.

        Returns:
            blocks (B, M) int32 in order, their text tokens in all (B,) int32, and the same rows with the shared blocks only,
            or None if there are none.
        """
        shown = ~self.hidden.unflatten(1, (-1, size))  # (B, M, size)
        count = shown.sum(-1)
        full = count == size
        last = torch.zeros_like(full)
        filling = [e.position // size for e in self.entries]
        for row, entry in enumerate(self.entries):
            free = not any(a < entry.position + 1 and b > filling[row] * size for a, b in entry.seat.spans)
            last[row, int((count[row] > 0).sum()) - 1] = free
        plain = full | last
        order = torch.argsort((~plain).int(), dim=1, stable=True)
        lengths = (count * plain).sum(1)
        width = max(int(plain.sum(1).max()), 1)
        blocks = self.blocks.gather(1, order)[:, :width].int()
        shared = (count > 0) & ~plain
        if not bool(shared.any()):
            return blocks, lengths.int(), None
        keep = torch.argsort((~shared).int(), dim=1, stable=True)[:, : int(shared.sum(1).max())]
        hidden = (~shown | ~shared[..., None]).gather(1, keep[..., None].expand(-1, -1, size)).flatten(1)
        rest = Queries(self.at, self.blocks.gather(1, keep), hidden, self.summary, self.entries)
        return blocks, lengths.int(), rest

    def split(self, blocks: int) -> list[Queries]:
        """Parts that gather at most about `blocks` blocks each."""
        per = max(blocks // max(self.blocks.shape[1], 1), 1)
        if per >= len(self.entries):
            return [self]
        cuts = range(0, len(self.entries), per)
        return [
            Queries(
                self.at[i : i + per], self.blocks[i : i + per], self.hidden[i : i + per],
                (self.summary[0][i : i + per], self.summary[1][i : i + per]), self.entries[i : i + per],
            )
            for i in cuts
        ]  # fmt: skip


@dataclass(frozen=True)
class Chunk:
    """A prefill chunk of one request with images.

    Attributes:
        part: its rows.
        text: slots of cached text keys: blocks and offsets, int64 (T,) each.
        carry: slot of the running summary in front of the chunk, (block, offset) 0-d tensors, or None.
        layout: of the keys [cached text, carry, chunk].
        visual: visual rows within the chunk, int64 (n,), or a slice if they are one run.
        kept: which of these leave their running summary in the cache, int64 (w,), and in which slots: those that text, a
            later chunk or another request that shares the prefix go on from.
        slots: blocks and offsets of those, int64 (w,) each.
    """

    part: Part
    text: tuple[torch.Tensor, torch.Tensor]
    carry: tuple[torch.Tensor, torch.Tensor] | None
    layout: Layout
    visual: torch.Tensor | slice
    kept: torch.Tensor
    slots: tuple[torch.Tensor, torch.Tensor]
    _prior: list[tuple[torch.Tensor, Shares | None]] = field(default_factory=list, compare=False)

    def prior(self, make: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Shares | None]:
        """Scores of the carry and the visual rows, (1, N), and their shares; made once for all layers."""
        if not self._prior:
            found = make()[None]
            self._prior.append((found, running_shares(found)))
        return self._prior[0]


class Window(NamedTuple):
    """What the layers of a step share about the keys of one request.

    Attributes:
        slots: of all its tokens so far: blocks and offsets, int64 (K,) each.
        prior: (1, K) float32, NaN on text.
        layout: where its visual keys lie; None if it has none.
        shares: of their prior, see `running_shares`.
    """

    slots: tuple[torch.Tensor, torch.Tensor]
    prior: torch.Tensor
    layout: Layout | None
    shares: Shares | None


def make_window(slots: tuple[torch.Tensor, torch.Tensor], prior: torch.Tensor) -> Window:
    """Of one request, from the prior of its tokens."""
    layout = Layout.of(~prior.isnan())
    if layout is None or not len(layout.visual):
        return Window(slots, prior, None, None)
    return Window(slots, prior, layout, running_shares(layout.keys(prior, 1, True)))


def parts(seats: Sequence[Seat], starts: Sequence[int], totals: Sequence[int]) -> list[Part]:
    """Requests with new tokens. `starts` are flat start rows (n + 1), `totals` sequence lengths after the step."""
    found = []
    for row, seat in enumerate(seats):
        start, end, total = starts[row], starts[row + 1], totals[row]
        if end > start:
            found.append(Part(row, seat, start, end, total - (end - start), total))
    return found


def sees_images(part: Part) -> bool:
    """True if a row of this step sees a visual key."""
    return bool(part.seat.spans) and part.seat.spans[0][0] < part.total


def make_queries(entries: Sequence[Query], table: torch.Tensor, size: int, every: bool = False) -> Queries:
    """Index tensors of single query rows.

    Args:
        table: block table (rows, blocks) on the device.
        size: tokens of a block.
        every: list all blocks, not those alone that hold text.
    """
    columns, hidden = (_all_blocks if every else _text_blocks)(entries, size)
    seen = [last_visual(e.seat.spans, e.position + 1) for e in entries]
    numbers = [[e.row for e in entries], [e.at for e in entries], [e.position + 1 for e in entries], seen]
    rows, at, ends, last = torch.tensor(numbers, dtype=torch.int64, device=table.device).unbind()
    return Queries(
        at,
        table[rows[:, None], torch.from_numpy(columns).to(table.device)].long(),
        torch.from_numpy(hidden).to(table.device),
        (table[rows, last // size].long(), last % size),
        tuple(entries),
        ends if every else None,
    )


def make_chunk(part: Part, table: torch.Tensor, size: int) -> Chunk:
    """Index tensors of one prefill chunk."""
    spans, past, total, device = part.seat.spans, part.past, part.total, table.device
    mask = visual_mask(spans, total)
    row = table[part.row].long()
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
    return Chunk(
        part=part,
        text=_slots(row, text, size),
        carry=None if carry < 0 else (row[carry // size], torch.tensor(carry % size, device=device)),
        layout=_layout(runs, device),
        visual=slice(int(new[0]), int(new[-1]) + 1) if one_run else torch.from_numpy(new).to(device),
        kept=torch.from_numpy(np.flatnonzero(keep)).to(device),
        slots=_slots(row, kept, size),
    )


def _is_kept(spans: Sequence[Span], past: int, total: int, size: int, position: int) -> bool:
    """Whether the block of a visual token is real: no hole, or begun by an earlier chunk, or at the end of this one."""
    block = position // size
    begun = past % size and block == past // size
    return bool(begun) or block == (total - 1) // size or not is_hole(spans, size, block)


def _all_blocks(entries: Sequence[Query], size: int) -> tuple[np.ndarray, np.ndarray]:
    """See `_text_blocks`; every block below the rows, in order."""
    ends = np.array([e.position + 1 for e in entries])
    width = -(-int(ends.max(initial=0)) // size)
    hidden = np.arange(width * size) >= ends[:, None]
    for row, entry in zip(hidden, entries, strict=True):
        for a, b in entry.seat.spans:
            row[a:b] = True
    return np.arange(width)[None], hidden


def _text_blocks(entries: Sequence[Query], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks below each row that hold text, int64 (B, M), and which of their slots do not, bool (B, M * size)."""
    plans = []
    for entry in entries:
        text = np.zeros((entry.position // size + 1, size), dtype=bool)
        text.reshape(-1)[: entry.position + 1] = ~visual_mask(entry.seat.spans, entry.position + 1)
        blocks = np.flatnonzero(text.any(1))
        plans.append((blocks, text[blocks]))
    width = max((len(blocks) for blocks, _ in plans), default=0)
    columns = np.zeros((len(entries), width), dtype=np.int64)
    hidden = np.ones((len(entries), width, size), dtype=bool)
    for i, (blocks, text) in enumerate(plans):
        columns[i, : len(blocks)] = blocks
        hidden[i, : len(blocks)] = ~text
    return columns, hidden.reshape(len(entries), width * size)


def _runs(text: int, carry: bool, mask: np.ndarray) -> list[tuple[int, int, bool]]:
    """Runs of the keys [cached text, carry, chunk]; the carry counts as a visual key."""
    kinds = np.concatenate([np.zeros(text, dtype=bool), np.ones(int(carry), dtype=bool), mask])
    borders = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    return [(a, b, bool(kinds[a])) for a, b in zip(borders, borders[1:], strict=False) if b > a]


def _layout(runs: list[tuple[int, int, bool]], device: torch.device) -> Layout:
    def index(visual: bool) -> torch.Tensor:
        found = [torch.arange(a, b, device=device) for a, b, kind in runs if kind == visual]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=device)

    return Layout(tuple(runs), index(False), index(True))


def _slots(row: torch.Tensor, positions: np.ndarray, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    at = torch.from_numpy(positions.astype(np.int64)).to(row.device)
    return row[at // size], at % size
