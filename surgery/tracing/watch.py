"""Watching a decoder's attention layer by layer, plain or patched, in row chunks that are reduced at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ...patches.attention import collect_inputs
from ...patches.attention_inputs import AttentionInputs
from ...patches.eager import eager_attention, raw_scores
from ...patches.errors import LostattnError
from ...patches.family import decoder_of
from .graph import LayerGraph, join, threshold_rows
from .memory import PeakMemory

# Of float32 weights at once: all heads, all keys, some rows. Above 32 MB glibc gives freed memory back at once; chunks a
# little below that leave gigabytes of holes in the heap.
CHUNK_BYTES = 64 * 2**20

# query rows, int64 (R,) -> attention weights (1, H, R, K)
Weights = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Watch:
    """Builds every layer's graph during the first forward call.

    Attributes:
        visual: (S,) bool, visual tokens of the prompt.
        threshold: least weight of an edge.
        found: layer -> graph over visual tokens, numbered from 0.
        largest: bytes of the largest chunk of weights.
        peaks: memory that reducing each layer took.
    """

    visual: torch.Tensor
    threshold: float
    found: dict[int, LayerGraph] = field(default_factory=dict)
    largest: int = 0
    peaks: list[PeakMemory] = field(default_factory=list)

    @torch.no_grad()
    def see(self, layer: int, weights: Weights, heads: int, keys: int) -> None:
        """Reduce one layer to its edges."""
        positions = self.visual.nonzero()[:, 0]
        step = max(1, CHUNK_BYTES // (4 * heads * keys))
        self.largest = max(self.largest, 4 * heads * keys * min(step, len(positions)))
        with PeakMemory(positions.device) as peak:
            parts = []
            for numbers in torch.arange(len(positions), device=positions.device).split(step):
                mean = weights(positions[numbers])[0].float().mean(0)[:, positions]  # (R, n)
                parts.append(threshold_rows(mean, numbers, self.threshold))
            self.found[layer] = join(parts)
        self.peaks.append(peak)


@contextmanager
def watched(model: Any, watch: Watch) -> Iterator[Watch]:
    """Let `watch` see the decoder's attention while the block runs; what the model computes stays the same.

    The function that transformers finds under the decoder's attention name is wrapped for the time being; other models
    that use it pass through unseen.

    Raises:
        LostattnError: a decoder whose attention does not go through transformers' registry.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # after patches made torchvision importable

    decoder = decoder_of(model.model)
    name = decoder.config._attn_implementation
    if name not in ALL_ATTENTION_FUNCTIONS:
        raise LostattnError(f"attention '{name}' cannot be watched: load the model with attn_implementation='sdpa'")
    real = ALL_ATTENTION_FUNCTIONS[name]
    modules = set(decoder.modules())

    def forward(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        if module in modules and query.shape[2] == len(watch.visual) and module.layer_idx not in watch.found:
            weights = _weights(module, query, key, value, attention_mask, kwargs)
            watch.see(module.layer_idx, weights, query.shape[1], key.shape[2])
        return real(module, query, key, value, attention_mask=attention_mask, **kwargs)

    ALL_ATTENTION_FUNCTIONS[name] = forward
    try:
        yield watch
    finally:
        del ALL_ATTENTION_FUNCTIONS[name]


def _weights(
    module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, kwargs: dict[str, Any]
) -> Weights:
    """What the attention of a prompt pays: q (1, H, S, D), k and v (1, Hkv, S, D)."""
    scale = kwargs.get("scaling")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    layer, call = getattr(module, "sap_layer", None), kwargs.get("sap_call")
    if layer is not None and layer.active and call is not None:
        inputs = collect_inputs(module.layer_idx, layer, call, q, k, v, mask, scale)
        return lambda rows: eager_attention(_some_rows(inputs, rows))[1]

    def plain(rows: torch.Tensor) -> torch.Tensor:
        scores = raw_scores(q[:, :, rows], k, scale)
        seen = _rows_of_mask(mask, rows, k.shape[2])
        if seen.dtype == torch.bool:
            scores = scores.masked_fill_(~seen, torch.finfo(scores.dtype).min)
        else:
            scores = scores + seen.to(scores.dtype)
        return torch.softmax(scores, -1, dtype=torch.float32)

    return plain


def _some_rows(inputs: AttentionInputs, rows: torch.Tensor) -> AttentionInputs:
    """The same attention for some of the query rows only, as the eager form computes it."""
    mask = _rows_of_mask(inputs.mask, rows, inputs.k.shape[2])
    patched = inputs.rows if inputs.rows is None else inputs.rows[:, rows]
    return replace(inputs, q=inputs.q[:, :, rows], mask=mask, rows=patched, layout=None, summary=None)


def _rows_of_mask(mask: torch.Tensor | None, rows: torch.Tensor, keys: int) -> torch.Tensor:
    """What some rows of a prompt may see, broadcastable to (1, H, R, K)."""
    if mask is None:
        return (torch.arange(keys, device=rows.device) <= rows[:, None])[None, None]
    return mask[:, :, rows, :keys]
