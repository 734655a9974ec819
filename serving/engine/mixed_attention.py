"""Attention of layers with the full cache: the native backend computes all heads, patched heads are computed besides."""

from __future__ import annotations

from typing import Any

import torch

from ...patches.anymask import any_mask_attention
from ...patches.attention import collect_job
from ...patches.call import CacheState, Call, LayerPlan
from ...patches.closed import closed_attention, patched_heads
from ...patches.job import Job, Layout, PriorScores
from .choose_query import choose_query_attention
from .pages import Pages
from .prior_store import PriorStore
from .roles import is_exact_form
from .sap_impl import SapImpl
from .steps import Part


class MixedImpl(SapImpl):
    """Scattered heads, and plans whose visual keys stay needed.

    Args:
        store: prior of cached tokens, shared by the layers of one block table.
        layer_plan: the layer's part of the plan, for plans without closed form.
        sums: room for the images' sums of so many requests.
    """

    def __init__(self, *args: Any, store: PriorStore, layer_plan: LayerPlan, sums: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.store, self.layer_plan = store, layer_plan
        self.exact = is_exact_form(self.plan)
        self.mask = torch.zeros(self.num_heads, dtype=torch.bool)
        self.mask[list(self.patched)] = True
        self.touched = sorted({h // self.group for h in self.patched})
        self.within = [self.touched.index(h // self.group) * self.group + h % self.group for h in self.patched]
        self.means = torch.zeros(0, dtype=torch.float32)
        self.log_masses = torch.zeros(0, dtype=torch.float32)
        self.sums = sums

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
        self.store.write(step, step.slots, self.state.prior[: len(k)], cache)
        if step.own or hasattr(self.native, "do_kv_cache_update"):
            self.write(layer, k, v, cache, step.slots)
        if step.native_rows is not None:
            at = step.native_rows
            part_out = torch.empty_like(out[: len(at)])
            self.native.forward(layer, q[at], k[at], v[at], cache, step.native, part_out)
            out[at] = part_out
        elif step.native is not None:
            self.native.forward(layer, q, k, v, cache, step.native, out)
        if not step.parts:
            return
        pages = self.pages(cache)
        done: set[int] = set()
        if step.queries is not None and not self.exact:
            self._single(q, pages, step, out)
            done = {e.row for e in step.queries.entries}
        for part in step.parts:
            if part.row not in done:
                self._part(q, k, v, pages, step, part, out)

    def _single(self, q: torch.Tensor, pages: Pages, step: Any, out: torch.Tensor) -> None:
        """Decode rows of the patched heads: text keys and the request's sums."""
        queries = step.queries
        self._sum_up(pages, step)
        rows = q[queries.at].unflatten(1, (self.num_kv_heads, self.group))[:, self.touched]  # (B, g, G, D)
        mean = self.means[step.places]
        log_mass = self.log_masses[step.places][:, None, None] + self.levels(mean.device)[self.touched]
        attend = choose_query_attention(q.device, q.dtype)
        mixed = attend(queries, rows, pages, self.scale, log_mass, mean, self.touched)
        mixed = mixed.flatten(1, 2)[:, self.within]
        heads = torch.tensor(self.patched, device=out.device)
        out[queries.at[:, None], heads] = mixed.to(out.dtype)

    def _sum_up(self, pages: Pages, step: Any) -> None:
        """Sums of the images of requests that decode for the first time."""
        if not self.means.numel():
            shape = (self.sums, len(self.touched), self.head_size)
            self.means = torch.zeros(shape, dtype=torch.float32, device=pages.cache.device)
            self.log_masses = torch.zeros(self.sums, dtype=torch.float32, device=pages.cache.device)
        for number in step.fresh:
            entry = step.queries.entries[number]
            row = step.table[entry.row].long()
            at = torch.cat([torch.arange(a, min(b, entry.position)) for a, b in entry.seat.spans if a < entry.position])
            slots = row[at.to(row.device) // pages.size], at.to(row.device) % pages.size
            prior = self.store.read(slots, pages.size)
            v = pages.values(slots)
            weights = torch.softmax(prior, -1)
            self.means[step.places[number]] = torch.einsum("t,gtd->gd", weights, v[self.touched].float())
            self.log_masses[step.places[number]] = torch.logsumexp(prior, -1)

    def _part(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pages: Pages, step: Any, part: Part, out: torch.Tensor
    ) -> None:
        """Rows of one request, patched heads of patched rows only; keys and values of the step itself are not read back."""
        if self.plan.queries == "last" and part.total < part.seat.prompt:
            return  # the prompt goes on in a later chunk
        row = step.table[part.row].long()
        at = torch.arange(part.total, device=row.device)
        slots = row[at // pages.size], at % pages.size
        prior = self.store.read(slots, pages.size)[None]
        rows, k, v = (x[part.start : part.end].transpose(0, 1)[None] for x in (q, k, v))  # (1, H, n, D)
        if part.past:
            old = pages.tokens((slots[0][: part.past], slots[1][: part.past]))
            k, v = (torch.cat([a[None].to(b.dtype), b], 2) for a, b in zip(old, (k, v), strict=True))
        if self.exact:
            self._exact(rows, k, v, prior, part, out)
            return
        if part.row in step.own:
            out[part.start : part.end] = closed_attention(self._job(rows, k, v, prior))[0].transpose(0, 1)
            return
        patched = self._patched_rows(part, prior)
        if not len(patched):
            return
        if self.plan.queries == "last":
            for i in patched.tolist():
                end = part.past + i + 1
                self._closed(
                    rows[:, :, i : i + 1], k[:, :, :end], v[:, :, :end], prior[:, :end], [0], part.start + i, out
                )
            return
        self._closed(rows, k, v, prior, patched.tolist(), part.start, out)

    def _patched_rows(self, part: Part, prior: torch.Tensor) -> torch.Tensor:
        """Rows of a part (from its first) that the plan patches, int64."""
        if self.plan.queries == "last":
            return torch.arange(max(part.seat.prompt - 1 - part.past, 0), part.end - part.start)
        text = prior[0, part.past :].isnan()
        if self.plan.queries == "all":
            text = torch.ones_like(text)
        return text.nonzero()[:, 0].cpu()

    def _closed(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        prior: torch.Tensor,
        keep: list[int],
        start: int,
        out: torch.Tensor,
    ) -> None:
        job = self._job(q, k, v, prior)
        if job.layout is None or not len(job.layout.visual):
            return
        heads = list(self.patched)
        found = patched_heads(job, heads)[0].transpose(0, 1)  # (n, heads, D)
        at = torch.tensor(keep, device=out.device)
        out[(at + start)[:, None], torch.tensor(heads, device=out.device)] = found[at].to(out.dtype)

    def _job(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prior: torch.Tensor) -> Job:
        layout = Layout.of(~prior.isnan())
        return Job(q, k, v, self.scale, PriorScores(prior, self.level), self.mask, layout=layout, listed=self.patched)

    def _exact(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prior: torch.Tensor, part: Part, out: torch.Tensor
    ) -> None:
        """As transformers would compute it: the rows of the prompt as one call, every later row as a call of its own."""
        split = min(max(part.seat.prompt - part.past, 0), part.end - part.start)
        calls = [(0, split)] if split else []
        calls += [(i, i + 1) for i in range(split, part.end - part.start)]
        for first, end in calls:
            keys = part.past + end
            self._call(q[:, :, first:end], k[:, :, :keys], v[:, :, :keys], prior[:, :keys], part, first, out)

    def _call(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        prior: torch.Tensor,
        part: Part,
        first: int,
        out: torch.Tensor,
    ) -> None:
        n, past = q.shape[2], k.shape[2] - q.shape[2]
        rows = torch.ones(1, n, dtype=torch.bool, device=q.device)
        if self.plan.queries == "last":
            rows[0, : max(part.seat.prompt - 1 - past, 0)] = False
        elif self.plan.queries == "after_image":
            rows &= prior[:, past:].isnan()
        if prior.isnan().all() or not rows.any():
            return
        call = Call(CacheState(prior), past, None if bool(rows.all()) else rows, self.plan.queries == "after_image")
        job = collect_job(self.index, self.layer_plan, call, q, k, v, None, self.scale)
        found = any_mask_attention(job)[0].transpose(0, 1)  # (n, H, D)
        at = rows[0].nonzero()[:, 0]
        out[part.start + first + at] = found[at].to(out.dtype)
