"""Attention backends of patched layers: they wrap the backend that vLLM chose, which computes all that is not patched."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import torch

from ..internals import (
    AttentionBackend,
    AttentionBackendEnum,
    AttentionCGSupport,
    AttentionMetadataBuilder,
    register_backend,
)

SUMMARY, MIXED = "LOSTATTN_SUMMARY", "LOSTATTN_MIXED"


class _Wrapping(AttentionBackend):
    """Mixed in front of a native backend's class."""

    native: ClassVar[Any]
    forward_includes_kv_cache_update = True  # the patched layers write summaries, or nothing, for visual tokens


class SummaryBackend(_Wrapping):
    """Layers that keep summaries of images instead of keys and values."""

    @staticmethod
    def get_name() -> str:
        """Name in vLLM's registry."""
        return SUMMARY

    @staticmethod
    def get_impl_cls() -> Any:
        """See AttentionBackend."""
        from .summary import SummaryImpl

        return SummaryImpl


class MixedBackend(_Wrapping):
    """Layers with the full cache, some of whose heads are patched."""

    @staticmethod
    def get_name() -> str:
        """Name in vLLM's registry."""
        return MIXED

    @staticmethod
    def get_impl_cls() -> Any:
        """See AttentionBackend."""
        from .mixed import MixedImpl

        return MixedImpl


@lru_cache
def wrap_backend(native: Any, base: Any) -> Any:
    """The class of `base` (SummaryBackend or MixedBackend) around a native backend."""

    def get_builder_cls() -> Any:
        from .metadata import MixedBuilder, SummaryBuilder

        builder = SummaryBuilder if base is SummaryBackend else MixedBuilder
        return type(builder.__name__, (builder,), {"native_builder": native.get_builder_cls()})

    cached = lru_cache(get_builder_cls)
    body = {"native": native, "get_builder_cls": staticmethod(cached)}
    return type(f"{base.__name__}Of{native.__name__}", (base, native), body)


def register_backends() -> None:
    """Give both backends a name in vLLM's registry; a second registration would be an error."""
    for name, path in ((SUMMARY, "SummaryBackend"), (MIXED, "MixedBackend")):
        if name not in AttentionBackendEnum.__members__:
            register_backend(name, f"{__name__}.{path}")


class WrappingBuilder(AttentionMetadataBuilder):
    """Builds the native backend's metadata, for all requests or some."""

    native_builder: ClassVar[Any]
    _cudagraph_support = (
        AttentionCGSupport.NEVER
    )  # shapes follow the layouts of the requests: pieces between stay graphs

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self.native = self.native_builder(kv_cache_spec, layer_names, vllm_config, device)
        self.reorder_batch_threshold = self.native.reorder_batch_threshold
        portable_isa(self.native, layer_names, vllm_config)

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> Any:
        """Never: see `_cudagraph_support`."""
        return cls._cudagraph_support


def portable_isa(native: Any, layer_names: list[str], vllm_config: Any) -> None:
    """On CPUs with AMX, choose the kernels whose cache is not packed for tiles: patched layers read it themselves."""
    if getattr(native, "isa", None) != "amx":
        return
    native.isa = "vec"
    for name in layer_names:
        vllm_config.compilation_config.static_forward_context[name].isa = "vec"


def some_requests(common: Any, rows: list[int]) -> tuple[Any, torch.Tensor]:
    """vLLM's common metadata of some requests, as if the batch had no others, and their flat rows, int64."""
    starts = common.query_start_loc_cpu.tolist()
    lengths = [starts[r + 1] - starts[r] for r in rows]
    at = torch.cat([torch.arange(starts[r], starts[r + 1]) for r in rows])
    index = torch.tensor(rows)
    device = common.seq_lens.device
    new = torch.zeros(len(rows) + 1, dtype=common.query_start_loc_cpu.dtype)
    new[1:] = torch.tensor(lengths).cumsum(0)
    upper = common.seq_lens_cpu_upper_bound
    flat, index_there = at.to(device), index.to(device)
    found = replace(
        common,
        query_start_loc=new.to(device),
        query_start_loc_cpu=new,
        seq_lens=common.seq_lens[index_there],
        num_reqs=len(rows),
        num_actual_tokens=len(at),
        max_query_len=max(lengths),
        block_table_tensor=common.block_table_tensor[index_there],
        slot_mapping=common.slot_mapping[flat],
        seq_lens_cpu_upper_bound=None if upper is None else upper[index],
        positions=None,
        is_prefilling=None if common.is_prefilling is None else common.is_prefilling[index],
    )
    return found, flat
