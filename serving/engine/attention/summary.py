"""Attention of layers whose cache keeps text and summaries of images: nothing of an image is ever read back."""

from __future__ import annotations

from typing import Any

import torch

from ....patches.attention_inputs import AttentionInputs, PriorScores
from ..cache.pages import Pages
from ..kernels.choose import choose_rows
from ..kernels.torch_prefill import VisualRows
from .impl import SapImpl
from .steps import PrefillChunk


class SummaryImpl(SapImpl):
    """Whole groups (DESIGN 2, closed form): text keys and values as ever; a visual slot holds the running summary
    (log Z, mean) of all visual tokens of the request up to it."""

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
        self.write(layer, k, v, cache, step.slots)
        self.run_native(layer, q, k, v, cache, step, out)
        pages = self.pages(cache)
        if step.decode is not None:
            if step.fresh:
                self.sums.fill([place for _, place in step.fresh], *self.read(pages, step.summaries))
            self.run_decode(q, pages, step.decode, *self.sums.read(step.table_rows), out)
        for chunk in step.chunks:
            self._chunk(q, k, v, pages, chunk, out)

    def _chunk(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pages: Pages, chunk: PrefillChunk, out: torch.Tensor
    ) -> None:
        """Prefill rows of one request: closed form over cached text, the carried summary and the chunk itself."""
        rows = slice(chunk.query.start, chunk.query.end)
        new_k, new_v = k[rows].transpose(0, 1), v[rows].transpose(0, 1)  # (g, n, D)
        keys, values = [new_k], [new_v]
        carried = front = None
        if chunk.carry is not None:
            block, offset = chunk.carry
            carried, mean = self.read(pages, (block[None], offset[None]))
            front = mean.transpose(0, 1)
            keys.insert(0, torch.zeros_like(new_k[:, :1]))
            values.insert(0, torch.zeros_like(new_v[:, :1]))
        if len(chunk.text[0]):
            text_k, text_v = pages.tokens(chunk.text)
            keys.insert(0, text_k)
            values.insert(0, text_v)
        seen = self.seen(chunk, carried)
        inputs = AttentionInputs(
            q=q[rows].transpose(0, 1)[None],
            k=torch.cat(keys, 1)[None] if len(keys) > 1 else new_k[None],
            v=torch.cat(values, 1)[None] if len(keys) > 1 else new_v[None],
            scale=self.scale,
            scores=self.scores(seen),
            heads=self.mask,
            layout=chunk.layout,
            listed=tuple(range(self.num_heads)),
        )
        mean, log_mass = self.rows(inputs, seen, front, chunk.kept, out[rows])
        pages.write_summaries(chunk.slots, log_mass, mean)

    def read(self, pages: Pages, slots: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log mass (w,) and mean (w, Hkv, D), float32, of slots."""
        return pages.read_summaries(slots)

    def seen(self, chunk: PrefillChunk, carried: torch.Tensor | None) -> VisualRows:
        """What the chunk's rows see of the images."""
        return chunk.seen(lambda: self._prior(chunk, carried))

    def rows(
        self,
        inputs: AttentionInputs,
        seen: VisualRows,
        front: torch.Tensor | None,
        kept: torch.Tensor,
        out: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (w, Hkv, D) and log mass (w,) of the rows that are kept; see `torch_rows`."""
        return choose_rows(out.device)(inputs, list(range(self.num_heads)), seen, front, kept, out)

    def scores(self, seen: VisualRows) -> PriorScores:
        """Scores of the visual keys and levels."""
        return PriorScores(seen.prior, self.level)

    def _prior(self, chunk: PrefillChunk, carried: torch.Tensor | None) -> torch.Tensor:
        """Log mass of the carry, which counts as one visual token, and scores of the visual rows, float32 (N,)."""
        prior = self.state.prior[chunk.query.start : chunk.query.end][chunk.visual]
        return prior if carried is None else torch.cat([carried, prior])
