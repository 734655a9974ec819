"""Whole groups whose KV heads score visual tokens otherwise (scores rule `fitted`): plain torch, one log mass per KV head."""

from __future__ import annotations

from typing import Any

import torch

from ....patches.attention_inputs import AttentionInputs, PriorScores
from ....patches.summary import running_shares
from ..cache.pages import Pages
from ..cache.text_blocks import DecodeRows
from ..kernels.torch_decode import decode_attention
from ..kernels.torch_prefill import VisualRows, torch_rows
from .steps import PrefillChunk
from .summary import SummaryImpl
from .tables import SummaryTable


class FittedImpl(SummaryImpl):
    """As `SummaryImpl`; the scores of a KV head are a weighted sum of the features of every visual token.

    Args:
        weights: of the layer's KV heads on this rank, float32 (Hkv, F).
    """

    def __init__(self, *args: Any, weights: torch.Tensor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weights = weights
        self.sums = SummaryTable(self.num_kv_heads, self.head_size, by_head=True)

    def read(self, pages: Pages, slots: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log mass (w, Hkv) and mean (w, Hkv, D), float32, of slots."""
        return pages.read_summaries(slots, by_head=True)

    def run_decode(
        self,
        q: torch.Tensor,
        pages: Pages,
        queries: DecodeRows,
        log_mass: torch.Tensor,
        mean: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """As in `SapImpl`, with log_mass (B, Hkv)."""
        rows = q[queries.at].unflatten(1, (self.num_kv_heads, self.group))
        result = decode_attention(queries, rows, pages, self.scale, log_mass, mean, self.levels(q.device))
        out[queries.at] = result.flatten(1, 2).to(out.dtype)

    def seen(self, chunk: PrefillChunk, carried: torch.Tensor | None) -> VisualRows:
        """What the chunk's rows see of the images; every layer has scores of its own, so nothing of it is kept for others."""
        prior = self._prior(chunk, carried)[None]
        count, before = chunk.counts()
        return VisualRows(prior, running_shares(prior), count, before, None)

    def rows(
        self,
        inputs: AttentionInputs,
        seen: VisualRows,
        front: torch.Tensor | None,
        kept: torch.Tensor,
        out: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (w, Hkv, D) and log mass (w, Hkv) of the rows that are kept."""
        return torch_rows(inputs, list(range(self.num_heads)), seen, front, kept, out)

    def scores(self, seen: VisualRows) -> PriorScores:
        """The levels; what stands for the scores themselves is in `seen`."""
        return PriorScores(seen.prior[:, 0], self.level)

    def _prior(self, chunk: PrefillChunk, carried: torch.Tensor | None) -> torch.Tensor:
        """Log masses of the carry, which counts as one visual token, and scores of the visual rows, float32 (Hkv, N)."""
        features = self.state.features[chunk.query.start : chunk.query.end][chunk.visual]
        if self.weights.device != features.device:
            self.weights = self.weights.to(features.device)
        prior = self.weights @ features.T
        return prior if carried is None else torch.cat([carried.T, prior], 1)
