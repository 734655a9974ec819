"""Attention of layers whose cache keeps text and summaries of images: nothing of an image is ever read back."""

from __future__ import annotations

from typing import Any

import torch

from ...patches.closed import patched_heads
from ...patches.job import Job, PriorScores
from ...patches.summary import running_summary
from .choose_query import choose_query_attention
from .pages import Pages
from .sap_impl import SapImpl
from .steps import Chunk, Queries


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
        if step.native_rows is None:
            self.native.forward(layer, q, k, v, cache, step.native, out)
            return
        if step.native is not None:
            at = step.native_rows
            part = torch.empty_like(out[: len(at)])
            self.native.forward(layer, q[at], k[at], v[at], cache, step.native, part)
            out[at] = part
        pages = self.pages(cache)
        if step.queries is not None:
            self._single(q, pages, step.queries, out)
        for chunk in step.chunks:
            self._chunk(q, k, v, pages, chunk, out)

    def _single(self, q: torch.Tensor, pages: Pages, queries: Queries, out: torch.Tensor) -> None:
        """Decode rows: text keys and one summary each, batched over requests."""
        every = len(queries.entries) == len(q)  # decode rows stand in order
        rows = q if every else q[queries.at]
        log_mass, mean = pages.read_summaries(queries.summary)
        log_mass = log_mass[:, None, None]
        if self.level is not None:
            log_mass = log_mass + self.levels(log_mass.device)
        rows = rows.unflatten(1, (self.num_kv_heads, self.group))  # (B, g, G, D)
        attend = choose_query_attention(q.device, q.dtype)
        found = attend(queries, rows, pages, self.scale, log_mass, mean).flatten(1, 2)
        if every:
            out.copy_(found)
        else:
            out[queries.at] = found.to(out.dtype)

    def _chunk(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pages: Pages, chunk: Chunk, out: torch.Tensor
    ) -> None:
        """Prefill rows of one request: closed form over cached text, the carried summary and the chunk itself."""
        rows = slice(chunk.part.start, chunk.part.end)
        new_k, new_v = k[rows].transpose(0, 1), v[rows].transpose(0, 1)  # (g, n, D)
        values = new_v[:, chunk.visual].float()
        keys, all_values = [new_k], [new_v]
        carried = None
        if chunk.carry is not None:
            block, offset = chunk.carry
            carried, mean = pages.read_summaries((block[None], offset[None]))
            values = torch.cat([mean.transpose(0, 1), values], 1)
            keys.insert(0, torch.zeros_like(new_k[:, :1]))
            all_values.insert(0, torch.zeros_like(new_v[:, :1]))
        if len(chunk.text[0]):
            text_k, text_v = pages.tokens(chunk.text)
            keys.insert(0, text_k)
            all_values.insert(0, text_v)
        prior, shares = chunk.prior(lambda: self._prior(chunk, carried))
        mean, log_mass = running_summary(prior, values[None], shares)
        job = Job(
            q=q[rows].transpose(0, 1)[None],
            k=torch.cat(keys, 1)[None] if len(keys) > 1 else new_k[None],
            v=torch.cat(all_values, 1)[None] if len(keys) > 1 else new_v[None],
            scale=self.scale,
            scores=PriorScores(prior, self.level),
            heads=self.all_heads,
            layout=chunk.layout,
            listed=tuple(range(self.num_heads)),
            summary=(mean[:, :, -1], log_mass[:, -1]),
            running=(mean, log_mass),
        )
        out[rows] = patched_heads(job, list(range(self.num_heads)))[0].transpose(0, 1)
        at = chunk.kept + int(chunk.carry is not None)
        pages.write_summaries(chunk.slots, log_mass[0, at], mean[0][:, at].transpose(0, 1))

    def _prior(self, chunk: Chunk, carried: torch.Tensor | None) -> torch.Tensor:
        """Log mass of the carry, which counts as one visual token, and scores of the visual rows, float32 (N,)."""
        prior = self.state.prior[chunk.part.start : chunk.part.end][chunk.visual]
        return prior if carried is None else torch.cat([carried, prior])
