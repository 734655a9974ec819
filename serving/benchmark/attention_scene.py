"""One decode step or prefill of a whole patched layer with random numbers, as the Triton kernels and torch's SDPA take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..engine.kernels.triton_common import PagedCache
from ..engine.kernels.triton_decode import DecodeScratch, decode, decode_splits
from ..engine.kernels.triton_kernels import programs_of
from ..engine.kernels.triton_prefill import prefill
from ..engine.kernels.triton_prepare import Spans, Text, prepare, prepare_rows
from ..engine.kernels.triton_slots import SummaryTable
from ..engine.kernels.triton_summaries import RunningSums, running_sums

BLOCK = 16
Call = Callable[[], object]


@dataclass(frozen=True)
class LayerShape:
    """Requests of one image each: query heads, KV heads, head size; visual tokens, text tokens (half in front of the image)."""

    requests: int
    visual: int
    text: int
    heads: int = 28
    kv_heads: int = 4
    d: int = 128

    @property
    def keys(self) -> int:
        """Tokens of a request."""
        return self.text + self.visual


class Step:
    """Requests whose blocks lie in any order.

    Args:
        patched: False: every token is text, which is the unpatched layer over the same paged cache.
        rows: new tokens of each request: 1 or all.
    """

    def __init__(self, shape: LayerShape, patched: bool, rows: int, device: torch.device) -> None:
        self.shape, self.device, self.rows = shape, device, rows
        before = shape.text // 2
        self.span = (before, before + shape.visual) if patched else (0, 0)
        blocks = -(-shape.keys // BLOCK)
        column = torch.arange(blocks, device=device) * BLOCK
        inside = (column >= self.span[0]) & (column + BLOCK <= self.span[1])  # blocks of an image are not allocated
        self.total = shape.requests * int((~inside).sum()) + 1
        self.table = torch.zeros(shape.requests, blocks, dtype=torch.int32, device=device)
        order = torch.randperm(self.total - 1, device=device) + 1
        self.table[:, ~inside] = order.view(shape.requests, -1).int()
        self.lengths = torch.full((shape.requests,), shape.keys, dtype=torch.int32, device=device)
        counts = torch.arange(shape.requests + 1, dtype=torch.int32, device=device)
        self.starts, at = counts * rows, counts
        bounds = (torch.full((shape.requests,), x, dtype=torch.int32, device=device) for x in self.span)
        self.spans = Spans(at, *bounds)
        self.text = Text.of(shape.requests, blocks, BLOCK, device)
        programs = programs_of(device)
        prepare(self.text, self.table, self.lengths, self.spans, shape.kv_heads, programs, self.starts)
        splits = decode_splits(shape.requests, shape.kv_heads, shape.keys, programs)
        self.scratch = DecodeScratch.of(shape.requests, shape.heads, shape.kv_heads, shape.d, splits, device)

    def cache(self, dtype: torch.dtype) -> PagedCache:
        """Keys and values of one layer in random numbers."""
        shape = self.shape
        whole = torch.randn(self.total, BLOCK, shape.kv_heads, 2 * shape.d, device=self.device, dtype=dtype)
        k, v = whole.transpose(1, 2).split(shape.d, -1)
        return PagedCache(k, v)

    def tokens(self, x: torch.Tensor, count: int | None = None) -> torch.Tensor:
        """Keys or values of a cache in order, (requests, Hkv, keys, D), of all requests or the first `count`."""
        return x[self.table[:count].long()].transpose(1, 2).flatten(2, 3)[:, :, : self.shape.keys]


def queries(shape: LayerShape, rows: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Random queries (requests * rows, H, D)."""
    return torch.randn(shape.requests * rows, shape.heads, shape.d, device=device, dtype=dtype)


def decode_call(step: Step, cache: PagedCache, q: torch.Tensor, table: SummaryTable) -> tuple[Call, torch.Tensor]:
    """A decode step and the tensor that it fills."""
    out = torch.empty_like(q)
    scale = q.shape[2] ** -0.5
    return lambda: decode(out, q, cache, step.text, step.scratch, scale, table=table), out


def random_summaries(shape: LayerShape, device: torch.device, patched: bool) -> SummaryTable:
    """Of every request, or of none."""
    count = shape.requests
    place = torch.arange(count, dtype=torch.int32, device=device)
    place = place if patched else torch.full_like(place, -1)
    log_mass = torch.randn(count, device=device) + torch.tensor(float(shape.visual), device=device).log()
    return SummaryTable(log_mass, torch.randn(count, shape.kv_heads, shape.d, device=device), place)


def decode_reference(step: Step, cache: PagedCache, q: torch.Tensor, table: SummaryTable, count: int) -> torch.Tensor:
    """What `decode_call` should give for the first `count` requests, in float64."""
    first, end = step.span
    q, log_mass, mean = (x[:count].double() for x in (q, table.log_mass, table.mean))
    k, v = (step.tokens(x, count).double() for x in (cache.k, cache.v))
    keep = torch.ones(step.shape.keys, dtype=torch.bool, device=q.device)
    keep[first:end] = False
    rows = q.unflatten(1, (step.shape.kv_heads, -1))
    scores = torch.einsum("bghd,bgtd->bght", rows, k[:, :, keep]) * q.shape[2] ** -0.5
    values = v[:, :, keep]
    if end > first:
        own = log_mass[:, None, None, None].expand(*scores.shape[:3], 1)
        scores, values = torch.cat([scores, own], 3), torch.cat([values, mean[:, :, None]], 2)
    return torch.einsum("bght,bgtd->bghd", scores.softmax(-1), values).flatten(1, 2)


def prefill_call(
    step: Step, cache: PagedCache, q: torch.Tensor, v: torch.Tensor, prior: torch.Tensor
) -> tuple[Call, torch.Tensor]:
    """The sums and the attention of a prefill (three launches), and the tensor that they fill."""
    shape, out = step.shape, torch.empty_like(q)
    seen = torch.full((len(q),), -1, dtype=torch.int32, device=q.device)
    prepare_rows(seen, step.starts, step.lengths, step.spans)
    sums = RunningSums.of(len(q), shape.requests, shape.kv_heads, shape.d, q.device)

    def call() -> None:
        running_sums(sums, prior, v, step.starts, cache, step.text.carry)
        prefill(out, q, cache, step.text, step.starts, step.lengths, sums, seen, q.shape[2] ** -0.5)

    return call, out


def prefill_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prior: torch.Tensor, rows: list[int]
) -> torch.Tensor:
    """Some rows of the first request in float64, (rows, H, D): scores of visual keys are the prior."""
    results = []
    for row in rows:
        q_row = q[row].double().unflatten(0, (k.shape[1], -1))
        keys, values, p = (x[: row + 1].double() for x in (k, v, prior))
        scores = torch.einsum("ghd,tgd->ght", q_row, keys) * q.shape[2] ** -0.5
        scores = torch.where(p.isnan(), scores, p)
        results.append(torch.einsum("ght,tgd->ghd", scores.softmax(-1), values).flatten(0, 1))
    return torch.stack(results)


def sdpa_call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> Call:
    """torch's flash attention over contiguous keys of all tokens: q (B, H, rows, D), k and v (B, Hkv, keys, D)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = [SDPBackend.FLASH_ATTENTION] if q.is_cuda else [SDPBackend.MATH]

    def call() -> torch.Tensor:
        with sdpa_kernel(backends):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    return call
