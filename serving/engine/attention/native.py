"""The metadata builder of the backend that vLLM chose, asked for all requests of a batch or for some."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch

from ..internals import AttentionCGSupport, AttentionMetadataBuilder


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


class Subset:
    """Some requests of a batch, as if it had no others.

    Args:
        starts: first flat row of every request and the end of the last, as long as the batch's rows and one more.
        rows: of the batch.

    Attributes:
        flat: their flat rows, int64 (n,).
    """

    def __init__(self, starts: list[int], rows: list[int], device: torch.device) -> None:
        lengths = [starts[r + 1] - starts[r] for r in rows]
        self.index = torch.tensor(rows)
        self.index_there = self.index.to(device)
        self.flat = torch.cat([torch.arange(starts[r], starts[r + 1]) for r in rows]).to(device)
        self.longest = max(lengths)
        self.starts = torch.tensor([0, *lengths]).cumsum(0).int()
        self.starts_there = self.starts.to(device)

    def of(self, common: Any) -> Any:
        """vLLM's common metadata of these requests alone."""
        upper, index, there = common.seq_lens_cpu_upper_bound, self.index, self.index_there
        return replace(
            common,
            query_start_loc=self.starts_there,
            query_start_loc_cpu=self.starts,
            seq_lens=common.seq_lens[there],
            num_reqs=len(index),
            num_actual_tokens=len(self.flat),
            max_query_len=self.longest,
            block_table_tensor=common.block_table_tensor[there],
            slot_mapping=common.slot_mapping[self.flat],
            seq_lens_cpu_upper_bound=None if upper is None else upper[index],
            positions=None,
            is_prefilling=None if common.is_prefilling is None else common.is_prefilling[index],
        )
