"""The same as `torch_rows` on CPUs: text parts by torch's kernel, all else in one pass of compiled loops over the rows."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ....patches.attention_inputs import AttentionInputs, Layout, PriorScores
from ....patches.text_part import Piece, text_pieces
from ..cache.pages import COMPILED_DTYPES, LANES
from .numba_support import answer_no_special_names, in_parallel
from .torch_prefill import VisualRows, torch_rows

FEW = 2**17  # numbers that are not worth a second thread
DTYPES = [{dtype} for dtype in COMPILED_DTYPES]


@cache
def prepare_rows(channels: int, dtype: torch.dtype) -> None:
    """Compile before the first request; the code is kept on disk, so this takes seconds once."""
    # the default dtype is the model's while vLLM loads it
    q = torch.zeros(1, 1, 2, channels, dtype=dtype)
    layout = Layout.of(torch.tensor([[False, True]]))
    assert layout is not None
    prior = torch.zeros(1, 1, dtype=torch.float32)
    inputs = AttentionInputs(q, q, q, 1.0, PriorScores(prior), torch.ones(1, dtype=torch.bool), layout=layout)
    compiled_rows(
        inputs, [0], VisualRows.of(prior, layout, 2), None, torch.tensor([1]), torch.zeros_like(q[0, 0, :, None])
    )


def compiled_rows(
    inputs: AttentionInputs,
    heads: list[int],
    rows: VisualRows,
    front: torch.Tensor | None,
    kept: torch.Tensor,
    out: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Arguments and results of `torch_rows`, which serves what the loops do not."""
    count, channels = inputs.q.shape[2:]
    fits = {inputs.q.dtype, inputs.v.dtype, out.dtype} in DTYPES and not channels % LANES and out.is_contiguous()
    if rows.weights is None or count == 1 or not fits:
        return torch_rows(inputs, heads, rows, front, kept, out)
    answer_no_special_names()
    from .numba_prefill_kernel import merge_kernel

    kernel, heads_of = merge_kernel(channels), _order(tuple(heads), inputs.q.shape[1] // inputs.k.shape[1])
    used = heads_of.used.tolist()
    values, sums = inputs.v[0, :, inputs.v.shape[2] - count :], _sum_in_front(inputs, rows, used, front).numpy()
    means = torch.zeros(len(kept), len(used), channels, dtype=torch.float32)
    keep = np.full(count, -1, dtype=np.int64)
    keep[kept.numpy()] = np.arange(len(kept))
    own, mass, to = rows.weights.own.numpy(), rows.weights.mass.numpy(), _bits(out).numpy()
    level = None if inputs.scores.level is None else torch.from_numpy(inputs.scores.level.numpy()[heads, None])
    for piece in text_pieces(inputs, heads):
        at = slice(piece.start, piece.end)
        text, share = _text_and_share(piece, len(heads), rows.weights.log_mass[at], level, values)
        arguments = (
            *_flat(text),
            share,
            *_flat(values[:, at]),
            own[at],
            mass[at],
            sums,
            *heads_of,
            keep[at],
            means.numpy(),
            to[at],
        )
        in_parallel(
            lambda first, end, a=arguments: kernel(*a, first, end),  # type: ignore[misc]
            len(used),
            share.size * channels // FEW,
        )
    return means, rows.weights.log_mass[kept]


class _Order(NamedTuple):
    """Where heads of each KV head begin, these KV heads, and the heads, as `merge_kernel` takes them."""

    begin: np.ndarray
    used: np.ndarray
    numbers: np.ndarray


@lru_cache(maxsize=512)
def _order(heads: tuple[int, ...], group: int) -> _Order:
    numbers = np.array(heads, dtype=np.int64)
    used = np.unique(numbers // group)
    return _Order(np.searchsorted(numbers, [*used * group, numbers[-1] + 1]), used, numbers)


def _text_and_share(
    piece: Piece, heads: int, log_mass: torch.Tensor, level: torch.Tensor | None, values: torch.Tensor
) -> tuple[torch.Tensor, np.ndarray]:
    """Attention on text (h, rows, D) and the share of it (h, rows): zero where there is none, and then any numbers."""
    if piece.out is None or piece.lse is None:
        return values[:1, :1], np.zeros((heads, piece.end - piece.start), dtype=np.float32)
    odds = piece.lse[0] - (log_mass if level is None else log_mass + level)
    return piece.out[0], odds.sigmoid_().contiguous().numpy()


def _sum_in_front(
    inputs: AttentionInputs, rows: VisualRows, used: list[int], front: torch.Tensor | None
) -> torch.Tensor:
    """Weighted sum of the visual values in front of the rows, float64 (g, D)."""
    assert inputs.layout is not None and rows.shares is not None
    if not rows.before:
        return torch.zeros(len(used), inputs.v.shape[3], dtype=torch.float64)
    if front is None:
        front = _used(inputs.v[0], used)[:, inputs.layout.visual[: rows.before]]
    return torch.einsum("t,gtd->gd", rows.shares.weights[0, : rows.before].double(), front.double())


def _flat(x: torch.Tensor) -> tuple[np.ndarray, int, int]:
    """The memory of x (heads, rows, D) from its first number to its last, and the steps from row to row and head to head."""
    x = _bits(x if x.stride(2) == 1 else x.contiguous())
    heads, rows = x.stride()[:2]
    length = (x.shape[0] - 1) * heads + (x.shape[1] - 1) * rows + x.shape[2]
    return x.as_strided((length,), (1,)).numpy(), rows, heads


def _bits(x: torch.Tensor) -> torch.Tensor:
    """bfloat16 as bits."""
    return x if x.dtype == torch.float32 else x.view(torch.uint16)


def _used(x: torch.Tensor, heads: list[int]) -> torch.Tensor:
    return x if len(heads) == len(x) else x[heads]
