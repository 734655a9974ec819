"""Rows of decode steps: which cache blocks hold their text keys, worked out once for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch

from .spans import RequestInfo, Span, visual_mask


class DecodeRow(NamedTuple):
    """One query row that is computed by itself: flat row `at` at position `position` of a request."""

    row: int
    request: RequestInfo
    at: int
    position: int


@dataclass(frozen=True)
class DecodeRows:
    """Rows that need text keys, and one summary each besides, as index tensors on the device.

    Attributes:
        at: flat rows, int64 (B,).
        blocks: cache blocks that hold text, int64 (B, M), padded with any block.
        hidden: slots of these blocks that are no text of the row, bool (B, M * block size).
        entries: the same rows on the host.
        lengths: keys of each row, int64 (B,), if `blocks` are all of its blocks in order, so that heads without a prior can
            be computed too; else None.
    """

    at: torch.Tensor
    blocks: torch.Tensor
    hidden: torch.Tensor
    entries: tuple[DecodeRow, ...]
    lengths: torch.Tensor | None = None
    _whole: dict[int, tuple[torch.Tensor, torch.Tensor, DecodeRows | None]] = field(default_factory=dict, compare=False)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Blocks, hidden slots (B, M, block size) and lengths, zeros if there are none, for compiled loops on CPUs."""
        lengths = self.blocks.new_zeros(len(self.blocks)) if self.lengths is None else self.lengths
        return self.blocks.numpy(), self.hidden.view(*self.blocks.shape, -1).numpy(), lengths.numpy()

    def whole_blocks(self, size: int) -> tuple[torch.Tensor, torch.Tensor, DecodeRows | None]:
        """See `_whole_blocks`; worked out once for all layers."""
        if size not in self._whole:
            self._whole[size] = self._whole_blocks(size)
        return self._whole[size]

    def _whole_blocks(self, size: int) -> tuple[torch.Tensor, torch.Tensor, DecodeRows | None]:
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
            free = not any(a < entry.position + 1 and b > filling[row] * size for a, b in entry.request.spans)
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
        rest = DecodeRows(self.at, self.blocks.gather(1, keep), hidden, self.entries)
        return blocks, lengths.int(), rest

    def split(self, blocks: int) -> list[DecodeRows]:
        """Parts that gather at most about `blocks` blocks each."""
        per = max(blocks // max(self.blocks.shape[1], 1), 1)
        if per >= len(self.entries):
            return [self]
        pieces = [slice(i, i + per) for i in range(0, len(self.entries), per)]
        return [DecodeRows(self.at[p], self.blocks[p], self.hidden[p], self.entries[p]) for p in pieces]


def make_decode_rows(entries: Sequence[DecodeRow], table: torch.Tensor, size: int, every: bool = False) -> DecodeRows:
    """Index tensors of single query rows.

    Args:
        table: block table (rows, blocks) on the device.
        size: tokens of a block.
        every: list all blocks, not those alone that hold text.
    """
    columns, hidden = (_all_blocks if every else _text_blocks)(entries, size)
    numbers = [[e.row for e in entries], [e.at for e in entries], [e.position + 1 for e in entries]]
    rows, at, ends = torch.tensor(numbers, dtype=torch.int64, device=table.device).unbind()
    return DecodeRows(
        at,
        table[rows[:, None], torch.from_numpy(columns).to(table.device)].long(),
        torch.from_numpy(hidden).to(table.device),
        tuple(entries),
        ends if every else None,
    )


def _all_blocks(entries: Sequence[DecodeRow], size: int) -> tuple[np.ndarray, np.ndarray]:
    """See `_text_blocks`; every block below the rows, in order."""
    ends = np.array([e.position + 1 for e in entries])
    width = -(-int(ends.max(initial=0)) // size)
    hidden = np.arange(width * size) >= ends[:, None]
    for row, entry in zip(hidden, entries, strict=True):
        for a, b in entry.request.spans:
            row[a:b] = True
    return np.arange(width)[None], hidden


def _text_blocks(entries: Sequence[DecodeRow], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks below each row that hold text, int64 (B, M), and which of their slots do not, bool (B, M * size)."""
    heads = [_filled_blocks(e.request.spans, size, e.position // size) for e in entries]
    width = max((len(blocks) + 1 for blocks, _ in heads), default=0)
    columns = np.zeros((len(entries), width), dtype=np.int64)
    hidden = np.ones((len(entries), width, size), dtype=bool)
    for i, (entry, (blocks, hide)) in enumerate(zip(entries, heads, strict=True)):
        last, count = entry.position // size, len(blocks)
        columns[i, :count], columns[i, count] = blocks, last
        hidden[i, :count] = hide
        hidden[i, count, : entry.position % size + 1] = visual_mask(
            entry.request.spans, entry.position + 1, last * size
        )
    return columns, hidden.reshape(len(entries), width * size)


@lru_cache(maxsize=4096)
def _filled_blocks(spans: tuple[Span, ...], size: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks 0..end-1 that hold text, int64 (m,), and which of their slots do not, bool (m, size): the same for many steps."""
    hide = visual_mask(spans, end * size).reshape(end, size)
    blocks = np.flatnonzero(~hide.all(1))
    return blocks, hide[blocks]
