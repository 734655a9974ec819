"""Metadata of one step for the patched layers of a KV-cache group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ....patches.plan import Plan
from ..cache.spans import RequestInfo, last_visual
from ..cache.text_blocks import DecodeRow, DecodeRows, make_decode_rows
from .backend import WrappingBuilder, some_requests
from .roles import is_exact_form
from .state import current_requests
from .steps import PrefillChunk, QuerySpan, RequestKeys, make_prefill_chunk, query_spans, sees_images
from .tables import TableRows

LONG = 512  # rows of a prefill from which fewer scores outweigh the native kernel


@dataclass
class SapMetadata:
    """What a patched layer computes in one step.

    Attributes:
        tokens: new tokens of the step.
        slots: cache slot of every new token, int64 (n,), negative where nothing is to be written.
        native: the wrapped backend's metadata.
        native_rows: flat rows that it covers, int64, or None for all.
        decode: rows that are computed by themselves.
        chunks: prefill chunks of requests with images.
        query_spans: requests that see images, for layers with the full cache.
        own: those whose rows are computed here for all heads (mixed layers).
        table_rows: where the layers keep the summaries of the decode rows; fresh: numbers and table rows of those not kept yet;
            summaries: cache slots of these, blocks and offsets, int64 (f,) each (summary layers).
        keys: by row of the batch, filled by the first mixed layer that runs.
    """

    tokens: int
    slots: torch.Tensor
    native: Any
    native_rows: torch.Tensor | None = None
    decode: DecodeRows | None = None
    chunks: list[PrefillChunk] = field(default_factory=list)
    query_spans: list[QuerySpan] = field(default_factory=list)
    own: frozenset[int] = frozenset()
    fresh: list[tuple[int, int]] = field(default_factory=list)
    table_rows: torch.Tensor | slice | None = None
    summaries: tuple[torch.Tensor, torch.Tensor] | None = None
    table: torch.Tensor | None = None
    keys: dict[int, RequestKeys] = field(default_factory=dict)


def _parts(common: Any, requests: Sequence[RequestInfo]) -> list[QuerySpan]:
    starts = common.query_start_loc_cpu.tolist()
    upper = common.seq_lens_cpu_upper_bound
    totals = (common.seq_lens.cpu() if upper is None else upper).tolist()
    return query_spans(requests[: len(starts) - 1], starts, totals)


def is_single_query(query: QuerySpan) -> bool:
    """True if the step brings one text token of the request: no running sums are needed."""
    position = query.total - 1
    return query.end - query.start == 1 and not any(a <= position < b for a, b in query.request.spans)


def _last_image(entry: DecodeRow) -> int:
    return last_visual(entry.request.spans, entry.position + 1)


class _Builder(WrappingBuilder):
    """Remembers which requests' images the layers have summed up already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table_rows = TableRows(self.device, self.vllm_config.parallel_config.pipeline_parallel_size - 1)

    def add_decode_rows(
        self, entries: list[DecodeRow], metadata: SapMetadata, table: torch.Tensor, every: bool = False
    ) -> None:
        """Rows that are computed by themselves, see `make_decode_rows`."""
        metadata.table_rows, metadata.fresh = self.table_rows.take(
            [(e.request.request_id, _last_image(e)) for e in entries]
        )
        if entries:
            metadata.decode = make_decode_rows(entries, table, self.kv_cache_spec.block_size, every)


class SummaryBuilder(_Builder):
    """For layers that keep summaries."""

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False, requests: Any = None
    ) -> SapMetadata:
        """Requests that have seen no image go the native way, the others by text keys and summaries."""
        common = common_attn_metadata
        found = _parts(common, current_requests() if requests is None else requests)
        visual = [query for query in found if sees_images(query)]
        if not visual:
            native = self.native.build(common_prefix_len, common, fast_build)
            return SapMetadata(common.num_actual_tokens, common.slot_mapping, native)
        size, table = self.kv_cache_spec.block_size, common.block_table_tensor
        slots = common.slot_mapping.long().clone()
        for query in visual:
            for a, b in query.request.spans:
                low, high = max(a, query.past) - query.past, min(b, query.total) - query.past
                if low < high:
                    slots[query.start + low : query.start + high] = -1
        metadata = SapMetadata(common.num_actual_tokens, slots, None, torch.zeros(0, dtype=torch.int64))
        plain = [query.row for query in found if not sees_images(query)]
        if plain:
            subset, metadata.native_rows = some_requests(common, plain)
            metadata.native = self.native.build(0, subset, fast_build)
        entries, metadata.chunks = [], []
        for query in visual:
            if is_single_query(query):
                entries.append(DecodeRow(query.row, query.request, query.start, query.total - 1))
            else:
                metadata.chunks.append(make_prefill_chunk(query, table, size))
        self.add_decode_rows(entries, metadata, table)
        if metadata.fresh:
            fresh = [entries[number] for number, _ in metadata.fresh]
            at = torch.tensor([[e.row for e in fresh], [_last_image(e) for e in fresh]], device=table.device)
            metadata.summaries = table[at[0], at[1] // size].long(), at[1] % size
        return metadata


class MixedBuilder(_Builder):
    """For layers with the full cache."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = Plan.from_json(self.vllm_config.model_config.hf_config.sap)
        # patched heads need no scores of visual keys then, which pays in long prefills
        self.closed = self.plan.queries == "all" and not is_exact_form(self.plan)

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False, requests: Any = None
    ) -> SapMetadata:
        """Long prefills and most decode rows are computed here; all else goes the native way, and what is patched is
        computed besides."""
        common = common_attn_metadata
        found = _parts(common, current_requests() if requests is None else requests)
        visual = [p for p in found if sees_images(p)]
        metadata = SapMetadata(
            common.num_actual_tokens, common.slot_mapping.long(), None, table=common.block_table_tensor
        )
        metadata.query_spans = visual
        entries = [e for p in visual for e in self.single_rows(p)]
        every = self._every_head(len(entries))
        alone = {e.row for e in entries} if every else set()
        long = {p.row for p in visual if self.closed and p.end - p.start >= LONG}
        metadata.own = frozenset(long | alone)
        rest = [p.row for p in found if p.row not in metadata.own]
        if not metadata.own:
            metadata.native = self.native.build(common_prefix_len, common, fast_build)
        elif rest:
            subset, metadata.native_rows = some_requests(common, rest)
            metadata.native = self.native.build(0, subset, fast_build)
        self.add_decode_rows(entries, metadata, common.block_table_tensor, every)
        return metadata

    def _every_head(self, rows: int) -> bool:
        """Whether decode rows leave the native kernel out: the form for them computes heads without a prior as well, and
        has work for all threads, among which the native kernel divides a row finer."""
        if not rows or is_exact_form(self.plan):
            return False
        layers = self.vllm_config.compilation_config.static_forward_context
        impls, threads = [layers[name].impl for name in self.layer_names], torch.get_num_threads()
        if threads > 1 and rows * impls[0].num_kv_heads < 2 * threads:
            return False
        return all(impl.reads_in_place() for impl in impls)

    def single_rows(self, query: QuerySpan) -> list[DecodeRow]:
        """The row of a decode step."""
        if not is_single_query(query) or query.total <= query.request.prompt:
            return []
        return [DecodeRow(query.row, query.request, query.start, query.total - 1)]
