# mypy: allow-untyped-defs, allow-incomplete-defs
"""What all layers of a KV-cache group need to know about one step: where text lies, and the last visual token before it.

Text of a request is named by units of up to 64 slots: 16 bytes a unit (its number, where it stands in the request, one bit for
each slot that holds text). For units of 16 slots that is 1 byte a text token, read once for each KV head, against 4 bytes for a
list of slots, and the address of a key is worked out from one number a unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .triton_common import programs_for, request_of

COLUMNS, ROWS = 128, 128  # units and rows that a program looks at at once


class Spans(NamedTuple):
    """Visual spans of the requests of a step, int32: those of request i are at[i] .. at[i+1]-1, each of positions first..end-1,
    ascending; the buffers may be longer."""

    at: torch.Tensor
    first: torch.Tensor
    end: torch.Tensor


@dataclass(frozen=True)
class Text:
    """Of one step, shared by the layers of a KV-cache group; buffers of a fixed size, filled by `prepare`.

    Attributes:
        blocks: units that hold text, int32 (R, M): cache block times units a block, plus the unit's number in it.
        at: number of each unit in its request, ascending, int32 (R, M).
        words: which of its slots are text, int64 (R, M), bit s for slot s.
        count: units of each request, int32 (R,); what lies behind is not written.
        least: keys that a split of a request should have at least, int32 (1,).
        summary, carry: flat slot (block * size + offset) of the last visual token of the request, and of the last one in front
            of the step's rows, -1 if there is none, int64 (R,).
        sums: of the kernel, int32 (2,), zero between launches.
        size: slots of a block.
    """

    blocks: torch.Tensor
    at: torch.Tensor
    words: torch.Tensor
    count: torch.Tensor
    least: torch.Tensor
    summary: torch.Tensor
    carry: torch.Tensor
    sums: torch.Tensor
    size: int

    @classmethod
    def of(cls, requests: int, columns: int, size: int, device: torch.device | str) -> Text:
        """Buffers for `requests` requests of `columns` blocks of `size` slots."""

        def empty(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        units = columns * (size // unit_of(size))
        wide, slot = empty(requests, units, dtype=torch.int64), empty(requests, dtype=torch.int64)
        lists = empty(requests, units), empty(requests, units), wide
        return cls(*lists, empty(requests), empty(1), slot, slot.clone(), empty(2), size)

    @property
    def unit(self) -> int:
        """Slots of a unit."""
        return unit_of(self.size)


class TextArgs(NamedTuple):
    """A `Text` as a kernel takes it."""

    blocks: Any
    at: Any
    words: Any
    count: Any
    least: Any
    summary: Any
    carry: Any
    stride: Any


def text_args(text: Text) -> TextArgs:
    """Arguments of a kernel."""
    slots = text.summary, text.carry
    return TextArgs(text.blocks, text.at, text.words, text.count, text.least, *slots, text.blocks.stride(0))


def unit_of(size: int) -> int:
    """The largest power of two that divides a block of `size` slots, at most 64."""
    return min(size & -size, 64)


def specify_prepare(
    table: torch.Tensor, lengths: torch.Tensor, spans: Spans, size: int, starts: torch.Tensor | None = None
) -> list[tuple[list[tuple[int, int, int]], int, int]]:
    """For every request: its units (number, place, word) and the slots `summary` and `carry`, slot by slot."""
    layout, unit = [], unit_of(size)
    for row, length in enumerate(lengths.tolist()):
        own = range(int(spans.at[row]), int(spans.at[row + 1]))
        visual = [any(spans.first[i] <= x < spans.end[i] for i in own) for x in range(length)]
        words = [0] * -(-length // unit)
        for x in range(length):
            words[x // unit] |= (not visual[x]) << (x % unit)
        slots = [int(table[row, x // size]) * size + x % size for x in range(length)]
        units = [(slots[i * unit] // unit, i, w - (w >> 63 << 64)) for i, w in enumerate(words) if w]
        past = length if starts is None else length - int(starts[row + 1] - starts[row])
        summary, carry = (slots[x] if (x := _last(visual, n)) >= 0 else -1 for n in (length, past))
        layout.append((units, summary, carry))
    return layout


def _last(visual: list[bool], end: int) -> int:
    return max((x for x in range(end) if visual[x]), default=-1)


@triton.jit
def _ones(n):
    """The lowest n of 64 bits, n = 0..64."""
    one = tl.full([1], 1, tl.int64)
    return tl.where(n >= 64, -1, (one << tl.minimum(n, 63).to(tl.int64)) - 1)


@triton.jit
def _clear(word, begin, first, end, UNIT: tl.constexpr):
    """A word whose slots begin at position `begin`, without those at positions first..end-1."""
    low = tl.minimum(tl.maximum(first - begin, 0), UNIT)
    high = tl.minimum(tl.maximum(end - begin, 0), UNIT)
    return word & ~(_ones(high) & ~_ones(low))


@triton.jit
def _slot(table, position, SIZE: tl.constexpr):
    """Flat slot of a position, -1 for position -1."""
    there = position >= 0
    block = tl.load(table + position // SIZE, mask=there, other=0).to(tl.int64)
    return tl.where(there, block * SIZE + position % SIZE, -1)


@triton.jit
def prepare_kernel(
    text,
    sums,
    table,
    lengths,
    starts,
    spans,
    s_table,
    shares,
    SIZE: tl.constexpr,
    UNIT: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Grid (requests,)."""
    b = tl.program_id(0)
    length = tl.load(lengths + b)
    past = length
    if starts is not None:
        past = length - (tl.load(starts + b + 1) - tl.load(starts + b))
    span = tl.load(spans.at + b)
    last = tl.load(spans.at + b + 1)
    table += b.to(tl.int64) * s_table
    PER: tl.constexpr = SIZE // UNIT
    result = 0
    visual = -1
    carried = -1
    for start in range(0, tl.cdiv(length, UNIT), COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        begin = column * UNIT
        behind = (start + COLUMNS) * UNIT
        word = _ones(tl.minimum(tl.maximum(length - begin, 0), UNIT))
        i = span
        first = tl.load(spans.first + i, mask=i < last, other=2147483647)
        while first < tl.minimum(behind, length):
            end = tl.load(spans.end + i)
            word = _clear(word, begin, first, end, UNIT)
            visual = tl.where(end > first, tl.minimum(end, length) - 1, visual)
            carried = tl.where((end > first) & (first < past), tl.minimum(end, past) - 1, carried)
            i += 1
            span = tl.where(end <= behind, i, span)  # ascending: the next columns need it no more
            first = tl.load(spans.first + i, mask=i < last, other=2147483647)
        keep = word != 0
        block = tl.load(table + column // PER, mask=keep, other=0)
        to = result + tl.cumsum(keep.to(tl.int32), 0) - 1 + b.to(tl.int64) * text.stride
        tl.store(text.blocks + to, block * PER + column % PER, mask=keep)
        tl.store(text.at + to, column, mask=keep)
        tl.store(text.words + to, word, mask=keep)
        result += tl.sum(keep.to(tl.int32), 0)
    tl.store(text.count + b, result)
    tl.store(text.summary + b, _slot(table, visual, SIZE))
    tl.store(text.carry + b, _slot(table, carried, SIZE))
    tl.atomic_add(sums, result * UNIT, sem="acq_rel", scope="gpu")
    if tl.atomic_add(sums + 1, 1, sem="acq_rel", scope="gpu") == tl.num_programs(0) - 1:
        total = tl.atomic_add(sums, 0, sem="acq_rel", scope="gpu")
        tl.store(text.least, tl.cdiv(total, shares))
        tl.store(sums, 0)
        tl.store(sums + 1, 0)


def prepare(
    text: Text,
    table: torch.Tensor,
    lengths: torch.Tensor,
    spans: Spans,
    kv_heads: int,
    programs: int,
    starts: torch.Tensor | None = None,
) -> None:
    """Fill `text`, once a step and KV-cache group. One launch, nothing is read on the host.

    Args:
        table: block table, int32 (R, C), stride 1 in C.
        lengths: tokens of each request after the step, int32 (R,); 0 for rows that pad a batch.
        spans: see `Spans`.
        kv_heads: of the layers.
        programs: wanted in all by `decode`: about two for each multiprocessor.
        starts: flat row where the step's rows of each request begin, int32 (R + 1,), for `carry`; None: `carry` is `summary`.
    """
    prepare_kernel[(len(lengths),)](
        text_args(text),
        text.sums,
        table,
        lengths,
        starts,
        spans,
        table.stride(0),
        max(programs // kv_heads, 1),
        SIZE=text.size,
        UNIT=text.unit,
        COLUMNS=COLUMNS,
        num_warps=4,
    )


@triton.jit(do_not_specialize=["rows", "requests"])
def rows_kernel(seen, starts, lengths, spans, rows, requests, ROWS: tl.constexpr):
    """Grid: see `programs_for`."""
    b, block = request_of(starts, requests, tl.program_id(0), ROWS)
    start = tl.load(starts + b)
    count = tl.load(starts + b + 1) - start
    if (block < 0) | (block * ROWS >= count):
        return
    past = tl.load(lengths + b) - count
    row = block * ROWS + tl.arange(0, ROWS)
    position = past + row
    last = tl.full([ROWS], -1, tl.int32)
    i = tl.load(spans.at + b)
    behind = tl.load(spans.at + b + 1)
    highest = past + tl.minimum((block + 1) * ROWS, count)
    first = tl.load(spans.first + i, mask=i < behind, other=2147483647)
    while first < highest:
        end = tl.load(spans.end + i)
        last = tl.where((first <= position) & (end > first), tl.minimum(end - 1, position), last)
        i += 1
        first = tl.load(spans.first + i, mask=i < behind, other=2147483647)
    result = tl.where(last >= past, start + last - past, tl.where(last >= 0, rows + b, -1))
    tl.store(seen + start + row, result, mask=row < count)


def prepare_rows(seen: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, spans: Spans) -> None:
    """Which summary each row of a step sees, for `triton_summaries` and `triton_prefill`. One launch.

    Args:
        seen: filled for the rows of all requests, int32 (n,): the last visual row of the same request up to the row itself, n + i
            if the last visual token of request i lies in front of the step's rows, -1 if there is none.
        starts, lengths, spans: as in `prepare`.
    """
    rows, requests = len(seen), len(lengths)
    rows_kernel[(programs_for(rows, requests, ROWS),)](
        seen, starts, lengths, spans, rows, requests, ROWS=ROWS, num_warps=4
    )


def specify_rows(starts: torch.Tensor, lengths: torch.Tensor, spans: Spans, rows: int) -> list[int]:
    """`seen`, row by row."""
    result = [-1] * rows
    for i, length in enumerate(lengths.tolist()):
        start, end = int(starts[i]), int(starts[i + 1])
        past = length - (end - start)
        own = range(int(spans.at[i]), int(spans.at[i + 1]))
        visual = [any(spans.first[s] <= x < spans.end[s] for s in own) for x in range(length)]
        for row in range(start, end):
            last = _last(visual, past + row - start + 1)
            result[row] = -1 if last < 0 else rows + i if last < past else start + last - past
    return result
