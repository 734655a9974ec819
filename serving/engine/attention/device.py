"""Steps by the Triton kernels: what a step needs lies in a few buffers on the device, and nothing is read back to the host.

One launch of `prepare` fills them from the engine's own block table and lengths; where images lie is copied to the device when
a request comes or goes. In a decode step, in which every request brings one token, no buffer moves, so that CUDA graphs hold it.
Steps with longer prefills but without an image go the way of `metadata`, where the wrapped backend does all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..cache.pages import Pages
from ..cache.spans import RequestInfo, last_visual
from ..internals import AttentionCGSupport
from ..kernels.triton_common import PagedCache
from ..kernels.triton_decode import DecodeScratch, decode, decode_splits
from ..kernels.triton_kernels import programs_of
from ..kernels.triton_prefill import prefill
from ..kernels.triton_prepare import Spans, Text, prepare, prepare_rows
from ..kernels.triton_slots import SummaryTable
from ..kernels.triton_summaries import RunningSums, running_sums
from ..kernels.triton_whole_sums import WholeScratch, whole_sums
from ..kernels.triton_write import EXTEND, KEEP, SKIP, write_rows
from .metadata import MixedBuilder, SummaryBuilder, host_lengths
from .mixed import MixedImpl
from .state import Batch, current_batch
from .summary import SummaryImpl
from .tables import TableRows

WHOLE_SPLITS = 16  # programs among which the values of a request's images are divided


@dataclass
class DeviceStep:
    """A step as the Triton kernels take it.

    Attributes:
        tokens: rows, with those that pad the batch of a graph.
        slots: flat cache slot of every row, int64 (n,).
        text: where text keys and the images' summaries lie.
        buffers: of the builder.
        starts: first row of each request, int32 (R + 1,). lengths: tokens after the step, int32 (R,).
        native: the wrapped backend's metadata (layers with the full cache).
        place: rows of the layers' tables, int32 (R,) (layers with the full cache).
        seen: which summary each row sees, int32 (n,), see `prepare_rows`; None if every request brings one token.
        kept: slots in which rows leave their running summary, int64 (n,), -1 for nowhere, where `seen` is given.
    """

    tokens: int
    slots: torch.Tensor
    text: Text
    buffers: Buffers
    starts: torch.Tensor
    lengths: torch.Tensor
    native: Any = None
    place: torch.Tensor | None = None
    seen: torch.Tensor | None = None
    kept: torch.Tensor | None = None


class Buffers:
    """What decode steps of one KV-cache group need on the device; made once for the largest batch.

    Args:
        requests, tokens: most rows of a batch, of a step. columns: blocks of a request at most. size: slots of a block.
        batches: under way at once.

    Attributes:
        rows: of the tables of layers with the full cache.
    """

    def __init__(self, requests: int, tokens: int, columns: int, size: int, batches: int, device: torch.device) -> None:
        self.requests, self.tokens, self.columns, self.device = requests, tokens, columns, device
        self.rows = requests * batches
        self.programs = programs_of(device)
        self.text = Text.of(requests, columns, size, device)
        self.place = torch.full((requests,), -1, dtype=torch.int32, device=device)
        self.ready: set[int] = set()  # rows of decode steps, 0 for others, for which layers have made their memory
        self._staged: list[torch.Tensor] = []  # being copied
        self._scratch: dict[tuple[int, ...], DecodeScratch] = {}
        self._sums: dict[tuple[int, int], RunningSums] = {}
        self.spans = self.copied_spans([])

    def copied_spans(self, requests: list[RequestInfo]) -> Spans:
        """The visual spans of requests on the device; rows behind them have none."""
        counts = np.zeros(self.requests + 1, dtype=np.int32)
        counts[1 : len(requests) + 1] = [len(r.spans) for r in requests]
        flat = np.array([s for r in requests for s in r.spans] or [(0, 0)], dtype=np.int32)
        host = [counts.cumsum(dtype=np.int32), flat[:, 0].copy(), flat[:, 1].copy()]
        return Spans(*self.copied(host))

    def copied(self, host: list[np.ndarray]) -> list[torch.Tensor]:
        """Arrays on the device, without waiting for it."""
        pin = self.device.type == "cuda"
        self._staged = [torch.from_numpy(x).pin_memory() if pin else torch.from_numpy(x) for x in host]
        return [x.to(self.device, non_blocking=True) for x in self._staged]

    def scratch(self, requests: int, heads: int, kv_heads: int, d: int) -> DecodeScratch:
        """For a batch of so many rows; layers of the same shape share it, as they run one after the other."""
        key = requests, heads, kv_heads, d
        if key not in self._scratch:
            keys = self.columns * self.text.size
            splits = decode_splits(requests, kv_heads, keys, self.programs)
            self._scratch[key] = DecodeScratch.of(requests, heads, kv_heads, d, splits, self.device)
        return self._scratch[key]

    def sums(self, kv_heads: int, d: int) -> RunningSums:
        """For the rows of any step; layers of the same shape share it."""
        if (kv_heads, d) not in self._sums:
            self._sums[kv_heads, d] = RunningSums.of(self.tokens, self.requests, kv_heads, d, self.device)
        return self._sums[kv_heads, d]


class _OnDevice:
    """Mixed in front of the builders of `metadata`."""

    _cudagraph_support = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffers: Buffers | None = None
        self.ids: list[str] | None = None  # of the batch whose spans are on the device
        self.requests: list[RequestInfo] = []
        self.settled = False  # no request has to be looked at until the batch changes
        self.capturing = False  # metadata for a CUDA graph that is being captured

    def build_for_cudagraph_capture(self: Any, common_attn_metadata: Any) -> Any:
        """See AttentionMetadataBuilder."""
        self.capturing = True
        try:
            return self.build(0, common_attn_metadata)
        finally:
            self.capturing = False

    def build(
        self: Any,
        common_prefix_len: int,
        common_attn_metadata: Any,
        fast_build: bool = False,
        batch: Batch | None = None,
    ) -> Any:
        """See AttentionMetadataBuilder."""
        common, batch = common_attn_metadata, current_batch() if batch is None else batch
        rows, single = common.num_reqs, common.max_query_len == 1
        if self.ids != list(batch.ids) or not single:
            self.ids, self.requests, self.settled = list(batch.ids) if single else None, batch.requests(), False
            if not single and not self._sees_images(common):
                return super().build(common_prefix_len, common, fast_build, batch)  # type: ignore[misc]
            if self.buffers is None or rows > self.buffers.requests:
                self.buffers = self._buffers(common)
            self.buffers.spans = self.buffers.copied_spans(self.requests)
        buffers: Buffers = self.buffers
        self._make_ready(rows if single else 0)
        step = DeviceStep(
            common.num_actual_tokens,
            common.slot_mapping,
            buffers.text,
            buffers,
            common.query_start_loc[: rows + 1],
            common.seq_lens[:rows],
        )
        table, heads = common.block_table_tensor, self.kv_cache_spec.num_kv_heads
        prepare(step.text, table, step.lengths, buffers.spans, heads, buffers.programs, step.starts)
        if not single:
            step.seen = torch.empty(step.tokens, dtype=torch.int32, device=self.device)
            prepare_rows(step.seen, step.starts, step.lengths, buffers.spans)
            slots = step.slots[: step.tokens]  # block 0 is vLLM's null block, which stands for blocks inside an image
            step.kept = torch.where(slots < self.kv_cache_spec.block_size, -1, slots)
        self.complete(step, common)
        return step

    def _make_ready(self: Any, rows: int) -> None:
        """What layers keep on the device is made here, once for each size: memory that is taken while a graph is captured
        belongs to the graph.

        Args:
            rows: of a decode step, or 0.
        """
        if rows in self.buffers.ready:
            return
        self.buffers.ready.add(rows)
        for name in self.layer_names:
            layer = self.vllm_config.compilation_config.static_forward_context[name]
            layer.impl.make_ready(layer, self.buffers, rows)

    def _sees_images(self: Any, common: Any) -> bool:
        """True if a request of the step has seen an image."""
        lengths = host_lengths(common).tolist()
        return any(r.spans and r.spans[0][0] < n for r, n in zip(self.requests, lengths, strict=False))

    def _buffers(self: Any, common: Any) -> Buffers:
        config = self.vllm_config
        requests = max(config.scheduler_config.max_num_seqs, common.num_reqs)
        tokens = max(config.scheduler_config.max_num_batched_tokens, common.num_actual_tokens)
        columns, size = common.block_table_tensor.shape[1], self.kv_cache_spec.block_size
        return Buffers(requests, tokens, columns, size, 1 + self.others, self.device)

    def complete(self, step: DeviceStep, common: Any) -> None:
        """What only some layers need."""


class DeviceSummaryBuilder(_OnDevice, SummaryBuilder):
    """For layers that keep summaries."""


class DeviceMixedBuilder(_OnDevice, MixedBuilder):
    """For layers with the full cache and a plan in closed form."""

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> Any:
        """No more than the wrapped backend, whose kernel runs in every step."""
        native = cls.native_builder.get_cudagraph_support(vllm_config, kv_cache_spec)
        return min(cls._cudagraph_support, native, key=lambda support: support.value)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device_rows = TableRows(self.device, self.others)

    def complete(self, step: DeviceStep, common: Any) -> None:
        """The native way for all heads of all rows, and the tables of requests that are new."""
        build = self.native.build_for_cudagraph_capture if self.capturing else partial(self.native.build, 0)
        step.native = build(common)
        step.place = step.buffers.place[: common.num_reqs]
        if not self.settled:
            self._settle(step, common)

    def _settle(self, step: DeviceStep, common: Any) -> None:
        """Let every row with an image have its row of the tables, and fill those of requests that come anew.

        While a prompt is being computed one token a step this is done for every step.
        """
        lengths = host_lengths(common).tolist()
        starts = common.query_start_loc_cpu.tolist()
        rows, names, after = [], [], []
        for row, (request, length) in enumerate(zip(self.requests, lengths, strict=False)):
            past = length - (starts[row + 1] - starts[row])
            before, last = last_visual(request.spans, past), last_visual(request.spans, length)
            if before >= 0 or (step.seen is None and last >= 0):
                rows.append(row)
                names.append((request.request_id, before))
                after.append((past, (request.request_id, last)))
        places, numbers = self.device_rows.places(names)
        place, filled = (np.full(step.buffers.requests, -1, dtype=np.int32) for _ in range(2))
        place[rows] = places
        fresh = [rows[number] for number, _ in numbers]
        filled[fresh] = place[fresh]
        end = np.zeros(step.buffers.requests, dtype=np.int32)
        end[fresh] = [after[number][0] for number, _ in numbers]
        on_device = step.buffers.copied([place, filled, end])
        step.buffers.place.copy_(on_device[0])
        if fresh:
            self._fill_tables(on_device[1], on_device[2], common)
        if step.seen is None:  # the layers add a visual token to its table row
            for name, (_, new) in zip(names, after, strict=True):
                self.device_rows.rename(name, new)
        self.settled = all(length > r.prompt for r, length in zip(self.requests, lengths, strict=False))

    def _fill_tables(self, place: torch.Tensor, end: torch.Tensor, common: Any) -> None:
        """Sums of the images that the cache holds, in every layer."""
        layers, rows = self.vllm_config.compilation_config.static_forward_context, common.num_reqs
        for name in self.layer_names:
            layer = layers[name]
            layer.impl.fill_table(layer, place[:rows], common.block_table_tensor, end[:rows])


class _DeviceImpl:
    """Mixed in front of the implementations: the cache and the plan as kernels take them."""

    def paged(self: Any, layer: Any, cache: torch.Tensor) -> PagedCache:
        """Access to this layer's cache."""
        pages = self.pages(cache)
        if self._paged is None or self._paged_of is not pages:
            k, v = pages.own
            scales = (
                (layer._k_scale.reshape(-1), layer._v_scale.reshape(-1)) if cache.element_size() == 1 else (None, None)
            )
            self._paged, self._paged_of = PagedCache(k, v, *scales), pages
        result: PagedCache = self._paged
        return result

    _paged: PagedCache | None = None
    _paged_of: Pages | None = None
    level_there: torch.Tensor | None = None  # levels of all query heads, float32 (H,), on the device
    mask_there: torch.Tensor | None = None  # patched heads, bool (H,)

    def make_ready(self: Any, layer: Any, buffers: Buffers, rows: int) -> None:
        """Make what the layer keeps on the device, and scratch for a decode step of so many rows, 0 for none."""
        if self.mask_there is None:
            self.mask_there = self.mask.to(buffers.device)
            self.level_there = None if self.level is None else self.level.to(buffers.device, torch.float32)
        self.paged(layer, layer.kv_cache)
        if rows:
            buffers.scratch(rows, self.num_heads, self.num_kv_heads, self.head_size)
        else:
            buffers.sums(self.num_kv_heads, self.head_size)


class DeviceSummaryImpl(_DeviceImpl, SummaryImpl):
    """Two launches a layer in decode: write the rows, attend. Four in other steps: two for the running summaries between them."""

    def attend(
        self,
        layer: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: torch.Tensor,
        step: Any,
        out: torch.Tensor,
    ) -> None:
        """See `SapImpl.attend`."""
        if not isinstance(step, DeviceStep):
            super().attend(layer, q, k, v, cache, step, out)
            return
        paged = self.paged(layer, cache)
        if paged.is_fp8:
            self.native.do_kv_cache_update(layer, k, v, cache, step.slots)
        prior, level = self.state.prior[: len(k)], self.level_there
        if step.seen is not None:
            write_rows(paged, k, v, prior, step.slots, SKIP)
            sums = step.buffers.sums(self.num_kv_heads, self.head_size)
            running_sums(sums, prior, v, step.starts, paged, step.text.carry, step.kept)
            prefill(out, q, paged, step.text, step.starts, step.lengths, sums, step.seen, self.scale, level)
            return
        write_rows(paged, k, v, prior, step.slots, EXTEND, step.text.carry)
        scratch = step.buffers.scratch(len(step.lengths), self.num_heads, self.num_kv_heads, self.head_size)
        decode(out, q, paged, step.text, scratch, self.scale, level)


class DeviceMixedImpl(_DeviceImpl, MixedImpl):
    """Three launches a layer in decode: write the rows, the native kernel for all heads, the patched heads anew.

    The native kernel reads keys of visual tokens for heads that are not patched, and no kernel of this package does; to have it
    compute the patched heads too costs their arithmetic, but no more bytes, as the heads of a KV head share its keys.
    """

    tables: SummaryTable | None = None

    def attend(
        self,
        layer: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: torch.Tensor,
        step: Any,
        out: torch.Tensor,
    ) -> None:
        """See `SapImpl.attend`."""
        if not isinstance(step, DeviceStep):
            super().attend(layer, q, k, v, cache, step, out)
            return
        paged = self.paged(layer, cache)
        table = self.table(step.place)
        if paged.is_fp8:
            self.native.do_kv_cache_update(layer, k, v, cache, step.slots)
        prior, level = self.state.prior[: len(k)], self.level_there
        going_on = table if step.seen is None else None
        write_rows(paged, k, v, prior, step.slots, KEEP, store=self.store.of(cache), table=going_on)
        self.native.forward(layer, q, k, v, cache, step.native, out)
        if step.seen is not None:
            sums = step.buffers.sums(self.num_kv_heads, self.head_size)
            running_sums(sums, prior, v, step.starts, paged, table)
            arguments = step.starts, step.lengths, sums, step.seen, self.scale, level, self.mask_there
            prefill(out, q, paged, step.text, *arguments)
            return
        scratch = step.buffers.scratch(len(step.lengths), self.num_heads, self.num_kv_heads, self.head_size)
        decode(out, q, paged, step.text, scratch, self.scale, level, self.mask_there, table)

    def make_ready(self, layer: Any, buffers: Buffers, rows: int) -> None:
        """See `_DeviceImpl`; the layer's table and the prior beside its cache too."""
        super().make_ready(layer, buffers, rows)
        self.store.of(layer.kv_cache)
        if self.tables is None or len(self.tables.log_mass) < buffers.rows:
            shape = buffers.rows, self.num_kv_heads, self.head_size
            mean = torch.zeros(shape, dtype=torch.float32, device=buffers.device)
            self.tables = SummaryTable(mean.new_zeros(buffers.rows), mean, buffers.place)

    def table(self, place: torch.Tensor | None) -> SummaryTable:
        """The layer's table, with the places of a step."""
        assert place is not None and self.tables is not None
        return self.tables._replace(place=place)

    def fill_table(self, layer: Any, place: torch.Tensor, block_table: torch.Tensor, end: torch.Tensor) -> None:
        """Sums of the images of requests at positions below `end` (R,), into rows `place` (R,), none where that is -1."""
        cache = layer.kv_cache
        paged, device = self.paged(layer, cache), place.device
        scratch = WholeScratch.of(len(place), self.num_kv_heads, self.head_size, WHOLE_SPLITS, device)
        whole_sums(self.table(place), paged, block_table, end, self.store.of(cache), scratch)
