"""Rows of decode steps: which cache blocks hold their text keys, worked out once a step for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch

from .spans import RequestInfo, Span, visual_mask


class DecodeRow(NamedTuple):
    """A row that is computed by itself: flat row `at` of the batch's row `row`, at `position` of the request."""

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

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Blocks, hidden slots (B, M, block size) and lengths, zeros if there are none, for compiled loops on CPUs."""
        lengths = self.blocks.new_zeros(len(self.blocks)) if self.lengths is None else self.lengths
        return self.blocks.numpy(), self.hidden.view(*self.blocks.shape, -1).numpy(), lengths.numpy()

    def split(self, blocks: int) -> list[DecodeRows]:
        """Parts that gather at most about `blocks` blocks each."""
        per = max(blocks // max(self.blocks.shape[1], 1), 1)
        if per >= len(self.entries):
            return [self]
        pieces = [slice(i, i + per) for i in range(0, len(self.entries), per)]
        return [DecodeRows(self.at[p], self.blocks[p], self.hidden[p], self.entries[p]) for p in pieces]


AHEAD = 8  # blocks behind the one being filled that are laid out at once


class TextBlocks:
    """Where the text keys of decode rows lie, kept up to date while the same requests bring one text token a step.

    What lies in front of the first row's block is worked out once; a later step shows one slot more of each request.

    Args:
        entries: the first rows. size: tokens of a block.
        every: list all blocks, not those alone that hold text.
    """

    def __init__(self, entries: Sequence[DecodeRow], size: int, every: bool) -> None:
        self.entries, self.size, self.every = tuple(entries), size, every
        self.rows = np.array([e.row for e in entries], dtype=np.int64)
        self.at = np.array([e.at for e in entries], dtype=np.int64)
        self.count = np.arange(len(entries))
        self.shown = np.array([e.position for e in entries], dtype=np.int64)  # last positions
        first = self.shown // size
        heads = [_filled_blocks(e.request.spans, size, e.position // size, every) for e in entries]
        used = np.array([len(blocks) for blocks, _ in heads], dtype=np.int64)
        self.shift, self.last = used - first, first + AHEAD - 1
        width = int(used.max(initial=0)) + AHEAD
        self.columns = np.zeros((len(entries), width), dtype=np.int64)
        self.hidden = np.ones((len(entries), width, size), dtype=bool)
        for i, (entry, (blocks, hide)) in enumerate(zip(entries, heads, strict=True)):
            end = used[i]
            self.columns[i, :end], self.columns[i, end:] = blocks, np.arange(first[i], first[i] + width - end)
            self.hidden[i, :end] = hide
            start = first[i] * size
            self.hidden[i, end, : entry.position + 1 - start] = visual_mask(
                entry.request.spans, entry.position + 1, start
            )

    def follows(self, positions: np.ndarray) -> bool:
        """True if positions, int64 (B,), are the next of every row, and lie in blocks that are laid out."""
        return bool((positions == self.shown + 1).all() and (positions // self.size <= self.last).all())

    def at_step(self, positions: np.ndarray, table: torch.Tensor) -> DecodeRows:
        """The rows at these positions, int64 (B,), each the next of the same request or the first.

        Args:
            table: block table (rows of the batch, blocks).
        """
        block = positions // self.size
        column = self.shift + block
        self.hidden[self.count, column, positions % self.size] = False
        self.shown = positions
        width = int(column.max(initial=-1)) + 1
        at = np.minimum(self.columns[:, :width], table.shape[1] - 1)
        device = table.device
        rows, index = torch.from_numpy(self.rows).to(device), torch.from_numpy(at).to(device)
        return DecodeRows(
            torch.from_numpy(self.at).to(device),
            table[rows[:, None], index].long(),
            torch.from_numpy(self.hidden[:, :width].copy()).flatten(1).to(device),
            self.entries,
            torch.from_numpy(positions + 1).to(device) if self.every else None,
        )


def make_decode_rows(entries: Sequence[DecodeRow], table: torch.Tensor, size: int, every: bool = False) -> DecodeRows:
    """The rows of one step, see `TextBlocks`."""
    positions = np.array([e.position for e in entries], dtype=np.int64)
    return TextBlocks(entries, size, every).at_step(positions, table)


@lru_cache(maxsize=4096)
def _filled_blocks(spans: tuple[Span, ...], size: int, end: int, every: bool) -> tuple[np.ndarray, np.ndarray]:
    """Blocks 0..end-1, all or those that hold text, int64 (m,), and which of their slots do not, bool (m, size)."""
    hide = visual_mask(spans, end * size).reshape(end, size)
    blocks = np.arange(end) if every else np.flatnonzero(~hide.all(1))
    return blocks, hide[blocks]
