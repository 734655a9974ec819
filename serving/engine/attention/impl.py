"""What both kinds of patched attention layers share: the wrapped implementation, the plan's part, the cache's layout."""

from __future__ import annotations

from typing import Any

import torch

from ....patches.errors import LostattnError
from ....patches.plan import Plan
from ....patches.text_part import neighbours
from ..cache.layout import columns_of
from ..cache.pages import Pages
from ..cache.text_blocks import DecodeRows
from ..internals import AttentionImpl
from ..kernels.choose import choose_decode
from ..kernels.numba_decode import numba_decode_attention
from .state import SapState
from .tables import SummaryTable

CACHE_DTYPES = ("auto", "float32", "float16", "bfloat16")


class SapImpl(AttentionImpl):
    """An attention implementation around a native one.

    Args:
        native: the class of implementation that vLLM chose for this layer.
        state, plan, index: the model's state and plan, the layer's number.
        patched: patched query heads of this layer, ascending, local numbers.
        level: calibrated levels of all its query heads, float32 (H,), or None.
    """

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        *native_arguments: Any,
        native: Any,
        state: SapState,
        plan: Plan,
        index: int,
        patched: tuple[int, ...],
        level: torch.Tensor | None,
    ) -> None:
        self.native = native(num_heads, head_size, scale, num_kv_heads, *native_arguments)
        self.num_heads, self.num_kv_heads, self.head_size = num_heads, num_kv_heads, head_size
        self.scale, self.state, self.plan, self.index = float(scale), state, plan, index
        self.patched, self.level = patched, level
        self.group = num_heads // num_kv_heads
        self.mask = torch.zeros(num_heads, dtype=torch.bool)
        self.mask[list(patched)] = True
        self.runs = neighbours(list(patched))
        self.wanted = None if len(patched) == num_heads else self.mask.view(num_kv_heads, self.group)
        self.sums = SummaryTable(num_kv_heads, head_size)
        self._pages: Pages | None = None
        self._levels: dict[torch.device, torch.Tensor] = {}
        dtype = native_arguments[2] if len(native_arguments) > 2 else "auto"
        if dtype not in CACHE_DTYPES:
            raise LostattnError(
                f"a KV cache of type '{dtype}' cannot be served with a plan, whose layers read it themselves: give "
                "--kv-cache-dtype bfloat16, or serve the unpatched model"
            )

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See AttentionImpl: query (n, H, D), key and value (n, Hkv, D), output (n, H, D), n with padding."""
        if attn_metadata is None or not kv_cache.numel():  # vLLM measures memory
            return output.zero_()
        n = attn_metadata.tokens
        self.attend(layer, query[:n], key[:n], value[:n], kv_cache, attn_metadata, output[:n])
        return output

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
        """One step: write the cache, fill `out` (n, H, D)."""
        raise NotImplementedError

    def run_native(
        self,
        layer: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: torch.Tensor,
        step: Any,
        out: torch.Tensor,
    ) -> None:
        """All heads of the rows that the step leaves to the wrapped implementation."""
        if step.native is None:
            return
        if step.native_rows is None:
            self.native.forward(layer, q, k, v, cache, step.native, out)
        else:
            at = step.native_rows
            part = torch.empty_like(out[: len(at)])
            self.native.forward(layer, q[at], k[at], v[at], cache, step.native, part)
            out[at] = part

    def run_decode(
        self,
        q: torch.Tensor,
        pages: Pages,
        queries: DecodeRows,
        log_mass: torch.Tensor,
        mean: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Patched heads of decode rows, or all: text keys and one summary each, log_mass (B,), mean (B, Hkv, D), float32."""
        every = len(queries.entries) == len(q)  # decode rows stand in order
        rows = (q if every else q[queries.at]).unflatten(1, (self.num_kv_heads, self.group))
        attend, level = choose_decode(q.device), self.levels(q.device)
        result = attend(queries, rows, pages, self.scale, log_mass, mean, level, self.wanted).flatten(1, 2)
        for run in self.runs if queries.lengths is None else [slice(None)]:
            if every:
                out[:, run] = result[:, run]
            else:
                out[queries.at, run] = result[:, run].to(out.dtype)

    def write(self, layer: Any, k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
        """Keys and values into their slots; negative slots take none."""
        if hasattr(self.native, "do_kv_cache_update"):
            self.native.do_kv_cache_update(layer, k, v, cache, slots)
            return
        keep = slots >= 0
        at, size = slots[keep], cache.shape[2]
        to_k, to_v = self.pages(cache).own
        to_k[at // size, :, at % size] = k[keep].to(cache.dtype)
        to_v[at // size, :, at % size] = v[keep].to(cache.dtype)

    def pages(self, cache: torch.Tensor) -> Pages:
        """Access to this layer's cache.

        Raises:
            LostattnError: the wrapped backend keeps its cache in another shape.
        """
        if self._pages is None or self._pages.cache is not cache:
            if cache.dim() != 4 or cache.shape[1] != self.num_kv_heads or cache.shape[3] != 2 * self.head_size:
                raise LostattnError(
                    f"the KV cache of {type(self.native).__name__} has the shape {tuple(cache.shape)}, which patched layers "
                    "cannot read: give --attention-backend FLASH_ATTN"
                )
            self._pages = Pages(cache, columns_of(self.native, cache))
        return self._pages

    def reads_in_place(self) -> bool:
        """True once the cache is known, if decode rows are read where it lies and heads without a prior can be, too."""
        if self._pages is None or self._pages.planes is None:
            return False
        return choose_decode(self._pages.cache.device) is numba_decode_attention

    def levels(self, device: torch.device) -> torch.Tensor:
        """Levels by KV head and query head, float32 (Hkv, G), zeros if the plan has none."""
        if device not in self._levels:
            result = torch.zeros(self.num_heads, dtype=torch.float32) if self.level is None else self.level
            self._levels[device] = result.to(device).unflatten(0, (self.num_kv_heads, self.group))
        return self._levels[device]

    def process_weights_after_loading(self, *args: Any) -> None:
        """Whatever the wrapped implementation does."""
        if hasattr(self.native, "process_weights_after_loading"):
            self.native.process_weights_after_loading(*args)
