"""Metadata of one step for the patched layers of a KV-cache group."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ....patches.plan import Plan
from ..cache.spans import last_visual
from ..cache.text_blocks import DecodeRow, DecodeRows, TextBlocks
from .native import Subset, WrappingBuilder
from .roles import is_exact_form, saves_memory
from .state import Batch, current_batch
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


def host_lengths(common: Any) -> np.ndarray:
    """Tokens of each request after the step, int64, by row of the batch."""
    upper = common.seq_lens_cpu_upper_bound
    result: np.ndarray = (common.seq_lens.cpu() if upper is None else upper).numpy()
    return result.astype(np.int64)


def is_single_query(query: QuerySpan) -> bool:
    """True if the step brings one text token of the request: no running sums are needed."""
    position = query.total - 1
    return query.end - query.start == 1 and not any(a <= position < b for a, b in query.request.spans)


def _last_image(entry: DecodeRow) -> int:
    return last_visual(entry.request.spans, entry.position + 1)


@dataclass
class Rows:
    """Which rows of a step are computed how.

    Attributes:
        native: requests that go the native way: True for all, None for none. blocks: text keys of the decode rows, if any.
    """

    native: Subset | bool | None
    blocks: TextBlocks | None


@dataclass
class Steady:
    """A batch whose requests all decode: what stays as it is while no request comes or goes.

    Attributes:
        ids: by row of the batch. prompts: tokens of their prompts, int64.
        rows, metadata: of the first such step.
    """

    ids: list[str]
    prompts: np.ndarray
    rows: Rows
    metadata: SapMetadata

    def goes_on(self, batch: Batch, common: Any, lengths: np.ndarray) -> bool:
        """True if the step brings the next token of the same requests."""
        count, blocks = len(self.ids), self.rows.blocks
        if common.max_query_len != 1 or common.num_actual_tokens != count or list(batch.ids) != self.ids:
            return False
        lengths = lengths[:count]
        known = blocks is None or blocks.follows(lengths[blocks.rows] - 1)
        return known and bool((lengths > self.prompts).all())


class _Builder(WrappingBuilder):
    """Remembers which requests' images the layers have summed up already, and the batch while it only decodes.

    Attributes:
        repeats: whether decode steps of the same requests differ by lengths alone.
    """

    repeats = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # with pipeline stages several batches are under way by turns
        self.others = self.vllm_config.parallel_config.pipeline_parallel_size - 1
        self.table_rows = TableRows(self.device, self.others)
        self.steady: Steady | None = None

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False, batch: Batch | None = None
    ) -> Any:
        """See AttentionMetadataBuilder; a `SapMetadata`."""
        common, batch = common_attn_metadata, current_batch() if batch is None else batch
        lengths = host_lengths(common)
        if self.steady is not None and self.steady.goes_on(batch, common, lengths):
            return self._next(self.steady, common, lengths, common_prefix_len, fast_build)
        self.steady, requests = None, batch.requests()
        starts = common.query_start_loc_cpu.tolist()
        queries = query_spans(requests[: len(starts) - 1], starts, lengths.tolist())
        metadata, rows = self.of_step(common, queries)
        self._fill(metadata, rows, common, common_prefix_len, fast_build)
        decodes = len(queries) == len(requests) and all(
            q.total > q.request.prompt and q.end - q.start == 1 for q in queries
        )
        if decodes and self.repeats and not self.others:
            prompts = np.array([r.prompt for r in requests], dtype=np.int64)
            self.steady = Steady(list(batch.ids), prompts, rows, metadata)
        return metadata

    def _next(self, steady: Steady, common: Any, lengths: np.ndarray, prefix: int, fast: bool) -> SapMetadata:
        blocks, table = steady.rows.blocks, common.block_table_tensor
        decode = None if blocks is None else blocks.at_step(lengths[blocks.rows] - 1, table)
        metadata = replace(
            steady.metadata,
            slots=common.slot_mapping.long(),
            decode=decode,
            fresh=[],
            summaries=None,
            table=table,
            keys={},
        )
        self._fill(metadata, steady.rows, common, prefix, fast)
        return metadata

    def _fill(self, metadata: SapMetadata, rows: Rows, common: Any, prefix: int, fast: bool) -> None:
        """What the wrapped backend needs for its rows."""
        if isinstance(rows.native, Subset):
            metadata.native, metadata.native_rows = self.native.build(0, rows.native.of(common), fast), rows.native.flat
        elif rows.native:
            metadata.native = self.native.build(prefix, common, fast)

    def of_step(self, common: Any, queries: list[QuerySpan]) -> tuple[SapMetadata, Rows]:
        """What layers compute, but for what the wrapped backend needs."""
        raise NotImplementedError

    def subset(self, common: Any, all_rows: list[QuerySpan], rows: list[int]) -> Subset | bool | None:
        """The native way for some rows of the batch."""
        if len(rows) == len(all_rows):
            return True
        return Subset(common.query_start_loc_cpu.tolist(), rows, self.device) if rows else None

    def add_decode_rows(
        self, entries: list[DecodeRow], metadata: SapMetadata, table: torch.Tensor, every: bool = False
    ) -> TextBlocks | None:
        """Rows that are computed by themselves, see `TextBlocks`."""
        metadata.table_rows, metadata.fresh = self.table_rows.take(
            [(e.request.request_id, _last_image(e)) for e in entries]
        )
        if not entries:
            return None
        blocks = TextBlocks(entries, self.kv_cache_spec.block_size, every)
        metadata.decode = blocks.at_step(np.array([e.position for e in entries], dtype=np.int64), table)
        return blocks


class SummaryBuilder(_Builder):
    """For layers that keep summaries."""

    def of_step(self, common: Any, queries: list[QuerySpan]) -> tuple[SapMetadata, Rows]:
        """Requests that have seen no image go the native way, the others by text keys and summaries."""
        visual = [query for query in queries if sees_images(query)]
        if not visual:
            return SapMetadata(common.num_actual_tokens, common.slot_mapping.long(), None), Rows(True, None)
        size, table = self.kv_cache_spec.block_size, common.block_table_tensor
        slots = common.slot_mapping.long().clone()
        for query in visual:
            for a, b in query.request.spans:
                low, high = max(a, query.past) - query.past, min(b, query.total) - query.past
                if low < high:
                    slots[query.start + low : query.start + high] = -1
        metadata = SapMetadata(common.num_actual_tokens, slots, None, torch.zeros(0, dtype=torch.int64))
        native = self.subset(common, queries, [query.row for query in queries if not sees_images(query)])
        entries: list[DecodeRow] = []
        for query in visual:
            if is_single_query(query):
                entries.append(DecodeRow(query.row, query.request, query.start, query.total - 1))
            else:
                metadata.chunks.append(make_prefill_chunk(query, table, size))
        blocks = self.add_decode_rows(entries, metadata, table)
        if metadata.fresh:
            fresh = [entries[number] for number, _ in metadata.fresh]
            at = torch.tensor([[e.row for e in fresh], [_last_image(e) for e in fresh]], device=table.device)
            metadata.summaries = table[at[0], at[1] // size].long(), at[1] % size
        return metadata, Rows(native, blocks)


class MixedBuilder(_Builder):
    """For layers with the full cache."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = Plan.from_json(self.vllm_config.model_config.hf_config.sap)
        # patched heads need no scores of visual keys then, which pays in long prefills
        self.closed = saves_memory(self.plan)
        self.repeats = not is_exact_form(self.plan)

    def of_step(self, common: Any, queries: list[QuerySpan]) -> tuple[SapMetadata, Rows]:
        """Long prefills and most decode rows are computed here; all else goes the native way, and what is patched is
        computed besides."""
        table = common.block_table_tensor
        metadata = SapMetadata(common.num_actual_tokens, common.slot_mapping.long(), None, table=table)
        metadata.query_spans = visual = [query for query in queries if sees_images(query)]
        entries = [e for query in visual for e in self.single_rows(query)]
        every = self._every_head(len(entries))
        alone = {e.row for e in entries} if every else set()
        long = {query.row for query in visual if self.closed and query.end - query.start >= LONG}
        metadata.own = frozenset(long | alone)
        native = self.subset(common, queries, [query.row for query in queries if query.row not in metadata.own])
        return metadata, Rows(native, self.add_decode_rows(entries, metadata, table, every))

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
