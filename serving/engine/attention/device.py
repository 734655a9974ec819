"""Decode steps for the Triton kernels: nothing is read back to the host and no buffer moves, so that CUDA graphs hold them.

Metadata of such a step are a few buffers of fixed size, filled by one launch of `prepare` from the engine's own block table and
lengths. Where images lie is copied to the device when a request comes or goes. All other steps go the way of `metadata`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..cache.pages import Pages
from ..cache.spans import RequestInfo, last_visual
from ..internals import AttentionCGSupport
from ..kernels.triton_common import PagedCache
from ..kernels.triton_decode import DecodeScratch, decode, decode_splits
from ..kernels.triton_kernels import programs_of
from ..kernels.triton_prepare import Spans, Text, prepare
from ..kernels.triton_slots import SummaryTable
from ..kernels.triton_whole_sums import WholeScratch, whole_sums
from ..kernels.triton_write import EXTEND, KEEP, write_rows
from .metadata import MixedBuilder, SummaryBuilder
from .mixed import MixedImpl
from .state import Batch, current_batch
from .summary import SummaryImpl
from .tables import TableRows

WHOLE_SPLITS = 16  # programs among which the values of a request's images are divided


@dataclass
class DecodeStep:
    """A step in which every request brings one token.

    Attributes:
        tokens: rows, with those that pad the batch of a graph.
        slots: flat cache slot of every row, int64 (n,).
        text: where text keys and the images' summaries lie.
        buffers: of the builder.
        native: the wrapped backend's metadata (layers with the full cache).
        place: rows of the layers' tables, int32 (n,) (layers with the full cache).
    """

    tokens: int
    slots: torch.Tensor
    text: Text
    buffers: Buffers
    native: Any = None
    place: torch.Tensor | None = None


class Buffers:
    """What decode steps of one KV-cache group need on the device; made once for the largest batch.

    Args:
        requests: most rows of a batch. columns: blocks of a request at most. size: slots of a block.
        batches: under way at once.

    Attributes:
        rows: of the tables of layers with the full cache.
    """

    def __init__(self, requests: int, columns: int, size: int, batches: int, device: torch.device) -> None:
        self.requests, self.columns, self.device = requests, columns, device
        self.rows = requests * batches
        self.programs = programs_of(device)
        self.text = Text.of(requests, columns, size, device)
        self.place = torch.full((requests,), -1, dtype=torch.int32, device=device)
        self._staged: list[torch.Tensor] = []  # being copied
        self._scratch: dict[tuple[int, ...], DecodeScratch] = {}
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


class _OnDevice:
    """Mixed in front of the builders of `metadata`."""

    _cudagraph_support = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffers: Buffers | None = None
        self.ids: list[str] | None = None  # of the batch whose spans are on the device
        self.requests: list[RequestInfo] = []
        self.settled = False  # no request has to be looked at until the batch changes

    def build(
        self: Any,
        common_prefix_len: int,
        common_attn_metadata: Any,
        fast_build: bool = False,
        batch: Batch | None = None,
    ) -> Any:
        """See AttentionMetadataBuilder."""
        common, batch = common_attn_metadata, current_batch() if batch is None else batch
        if common.max_query_len != 1:
            self.ids = None
            return super().build(common_prefix_len, common, fast_build, batch)  # type: ignore[misc]
        rows = common.num_reqs
        if self.buffers is None or rows > self.buffers.requests:
            self.buffers = self._buffers(common)
        buffers: Buffers = self.buffers
        if self.ids != list(batch.ids):
            self.ids = list(batch.ids)
            self.requests = batch.requests()
            buffers.spans = buffers.copied_spans(self.requests)
            self.settled = False
        text, table = buffers.text.rows(0, rows), common.block_table_tensor
        prepare(
            text, table, common.seq_lens[:rows], buffers.spans, self.kv_cache_spec.num_kv_heads, buffers.programs,
            common.query_start_loc[: rows + 1],
        )  # fmt: skip
        step = DecodeStep(common.num_actual_tokens, common.slot_mapping, text, buffers)
        self.complete(step, common, fast_build)
        return step

    def _buffers(self: Any, common: Any) -> Buffers:
        config = self.vllm_config
        requests = max(config.scheduler_config.max_num_seqs, common.num_reqs)
        columns, size = common.block_table_tensor.shape[1], self.kv_cache_spec.block_size
        return Buffers(requests, columns, size, 1 + self.others, self.device)

    def complete(self, step: DecodeStep, common: Any, fast: bool) -> None:
        """What only some layers need."""


class DeviceSummaryBuilder(_OnDevice, SummaryBuilder):
    """For layers that keep summaries."""


class DeviceMixedBuilder(_OnDevice, MixedBuilder):
    """For layers with the full cache and a plan in closed form."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device_rows = TableRows(self.device, self.others)

    def complete(self, step: DecodeStep, common: Any, fast: bool) -> None:
        """The native way for all heads of all rows, and the tables of requests that are new."""
        step.native = self.native.build(0, common, fast)
        step.place = step.buffers.place[: common.num_reqs]
        if not self.settled:
            self._settle(step, common)

    def _settle(self, step: DecodeStep, common: Any) -> None:
        """Let every row with an image have its row of the tables, and fill those of requests that come anew.

        While a prompt is being computed one token a step this is done for every step.
        """
        upper = common.seq_lens_cpu_upper_bound
        lengths = (common.seq_lens.cpu() if upper is None else upper).tolist()
        rows, names, fresh = [], [], []
        for row, (request, length) in enumerate(zip(self.requests, lengths, strict=False)):
            before = last_visual(request.spans, length - 1)
            if before >= 0 or last_visual(request.spans, length) == length - 1:
                rows.append(row)
                names.append((request.request_id, before))
        places, numbers = self.device_rows.places(names)
        place, filled = (np.full(step.buffers.requests, -1, dtype=np.int32) for _ in range(2))
        place[rows] = places
        fresh = [rows[number] for number, _ in numbers]
        filled[fresh] = place[fresh]
        end = np.zeros(step.buffers.requests, dtype=np.int32)
        end[fresh] = [lengths[row] - 1 for row in fresh]
        on_device = step.buffers.copied([place, filled, end])
        step.buffers.place.copy_(on_device[0])
        if fresh:
            self._fill_tables(step, on_device[1], on_device[2], common)
        for row, name in zip(rows, names, strict=True):
            if last_visual(self.requests[row].spans, lengths[row]) == lengths[row] - 1:
                self.device_rows.rename(name, (name[0], lengths[row] - 1))
        self.settled = all(length > r.prompt for r, length in zip(self.requests, lengths, strict=False))

    def _fill_tables(self, step: DecodeStep, place: torch.Tensor, end: torch.Tensor, common: Any) -> None:
        """Sums of the images that the cache holds, in every layer."""
        layers, rows = self.vllm_config.compilation_config.static_forward_context, common.num_reqs
        for name in self.layer_names:
            layer = layers[name]
            layer.impl.fill_table(layer, step.buffers.rows, place[:rows], common.block_table_tensor, end[:rows])


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
        found: PagedCache = self._paged
        return found

    _paged: PagedCache | None = None
    _paged_of: Pages | None = None
    _level: torch.Tensor | None = None
    _wanted: torch.Tensor | None = None

    def level_on(self: Any, device: torch.device) -> torch.Tensor | None:
        """Levels of all query heads, float32 (H,), or None."""
        if self.level is not None and self._level is None:
            self._level = self.level.to(device, torch.float32)
        found: torch.Tensor | None = self._level
        return found


class DeviceSummaryImpl(_DeviceImpl, SummaryImpl):
    """Two launches a layer: write the rows, attend."""

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
        if not isinstance(step, DecodeStep):
            super().attend(layer, q, k, v, cache, step, out)
            return
        paged = self.paged(layer, cache)
        if paged.is_fp8:
            self.native.do_kv_cache_update(layer, k, v, cache, step.slots)
        write_rows(paged, k, v, self.state.prior[: len(k)], step.slots, EXTEND, step.text.carry)
        scratch = step.buffers.scratch(len(q), self.num_heads, self.num_kv_heads, self.head_size)
        decode(out, q, paged, step.text, scratch, self.scale, self.level_on(q.device))


class DeviceMixedImpl(_DeviceImpl, MixedImpl):
    """Three launches a layer: write the rows, the native kernel for all heads, the patched heads anew."""

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
        if not isinstance(step, DecodeStep):
            super().attend(layer, q, k, v, cache, step, out)
            return
        paged = self.paged(layer, cache)
        table = self.table(step.buffers.rows, step.place)
        if paged.is_fp8:
            self.native.do_kv_cache_update(layer, k, v, cache, step.slots)
        store = self.store.of(cache)
        write_rows(paged, k, v, self.state.prior[: len(k)], step.slots, KEEP, store=store, table=table)
        self.native.forward(layer, q, k, v, cache, step.native, out)
        scratch = step.buffers.scratch(len(q), self.num_heads, self.num_kv_heads, self.head_size)
        if self._wanted is None:
            self._wanted = self.mask.to(q.device)
        decode(out, q, paged, step.text, scratch, self.scale, self.level_on(q.device), self._wanted, table)

    def table(self, rows: int, place: torch.Tensor | None) -> SummaryTable:
        """The layer's table of at least `rows` rows, with the places of a step."""
        assert place is not None
        if self.tables is None or len(self.tables.log_mass) < rows:
            mean = torch.zeros(rows, self.num_kv_heads, self.head_size, dtype=torch.float32, device=place.device)
            self.tables = SummaryTable(torch.zeros_like(mean[:, 0, 0]), mean, place)
        return self.tables._replace(place=place)

    def fill_table(
        self, layer: Any, rows: int, place: torch.Tensor, block_table: torch.Tensor, end: torch.Tensor
    ) -> None:
        """Sums of the images of requests at positions below `end` (R,), into rows `place` (R,) of a table of
        `rows` rows, none where that is -1."""
        cache = layer.kv_cache
        paged = self.paged(layer, cache)
        scratch = WholeScratch.of(len(place), self.num_kv_heads, self.head_size, WHOLE_SPLITS, place.device)
        whole_sums(self.table(rows, place), paged, block_table, end, self.store.of(cache), scratch)
