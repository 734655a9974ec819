"""Attention of layers with the full cache: long prefills and most decode rows are computed here, head by head as the plan
says; for all other rows the native backend computes all heads, and patched heads are computed besides."""

from __future__ import annotations

from typing import Any

import torch

from ....patches.anymask import any_mask_attention
from ....patches.attention import collect_inputs
from ....patches.attention_inputs import AttentionInputs, Layout, PriorScores
from ....patches.call import CacheState, Call, LayerPlan
from ....patches.closed import other_heads, patched_heads, put_heads
from ....patches.summary import running_summary
from ..cache.pages import Pages
from ..kernels.choose import choose_rows
from .impl import SapImpl
from .roles import is_exact_form
from .state import PriorStore
from .steps import QuerySpan, RequestKeys, make_request_keys


class MixedImpl(SapImpl):
    """Scattered heads, and plans whose visual keys stay needed.

    Args:
        store: prior of cached tokens, shared by the layers of one block table.
        layer_plan: the layer's part of the plan, for plans without closed form.
    """

    def __init__(self, *args: Any, store: PriorStore, layer_plan: LayerPlan, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.store, self.layer_plan = store, layer_plan
        self.exact = is_exact_form(self.plan)
        self.touched = sorted({h // self.group for h in self.patched})

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
        self.run_native(layer, q, k, v, cache, step, out)
        if not step.query_spans:
            return
        pages = self.pages(cache)
        done: set[int] = set()
        if step.decode is not None and not self.exact:
            self._sum_up(pages, step)
            self.run_decode(q, pages, step.decode, *self.sums.read(step.table_rows), out)
            done = {e.row for e in step.decode.entries}
        for query in step.query_spans:
            if query.row not in done:
                self._request(q, k, v, pages, step, query, out)

    def _sum_up(self, pages: Pages, step: Any) -> None:
        """Sums of the images of requests that decode for the first time."""
        for number, place in step.fresh:
            entry = step.decode.entries[number]
            row = step.table[entry.row].long()
            at = torch.cat(
                [torch.arange(a, min(b, entry.position)) for a, b in entry.request.spans if a < entry.position]
            )
            slots = row[at.to(row.device) // pages.size], at.to(row.device) % pages.size
            prior = self.store.read(slots, pages.size)
            v = pages.values(slots)
            weights = torch.softmax(prior, -1)
            mean = torch.einsum("t,gtd->gd", weights, v.float())
            self.sums.fill([place], torch.logsumexp(prior, -1)[None], mean[None])

    def _request(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        pages: Pages,
        step: Any,
        query: QuerySpan,
        out: torch.Tensor,
    ) -> None:
        """Rows of one request, patched heads of patched rows only; keys and values of the step itself are not read back."""
        if self.plan.queries == "last" and query.total < query.request.prompt:
            return  # the prompt goes on in a later chunk
        keys = self._keys(pages, step, query)
        rows, k, v = (x[query.start : query.end].transpose(0, 1)[None] for x in (q, k, v))  # (1, H, n, D)
        if query.past:
            blocks, offsets = keys.slots
            old = pages.tokens((blocks[: query.past], offsets[: query.past]))
            k, v = (torch.cat([a[None].to(b.dtype), b], 2) for a, b in zip(old, (k, v), strict=True))
        if self.exact:
            self._exact(rows, k, v, keys.prior, query, out)
        elif self.plan.queries == "last":
            self._last(rows, k, v, keys, query, out)
        elif keys.layout is not None:
            self._closed(rows, k, v, keys, query, step, out)

    def _keys(self, pages: Pages, step: Any, query: QuerySpan) -> RequestKeys:
        if query.row not in step.keys:
            row = step.table[query.row].long()
            at = torch.arange(query.total, device=row.device)
            slots = row[at // pages.size], at % pages.size
            step.keys[query.row] = make_request_keys(
                slots, self.store.read(slots, pages.size)[None], query.end - query.start
            )
        return step.keys[query.row]

    def _last(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        keys: RequestKeys,
        query: QuerySpan,
        out: torch.Tensor,
    ) -> None:
        """The last row of the prompt and those behind it."""
        heads = list(self.patched)
        for i in range(max(query.request.prompt - 1 - query.past, 0), query.end - query.start):
            end = query.past + i + 1
            prior = keys.prior[:, :end]
            inputs = self._inputs(q[:, :, i : i + 1], k[:, :, :end], v[:, :, :end], prior, Layout.of(~prior.isnan()))
            put_heads(_as_heads(out[query.start + i : query.start + i + 1]), heads, patched_heads(inputs, heads))

    def _closed(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        keys: RequestKeys,
        query: QuerySpan,
        step: Any,
        out: torch.Tensor,
    ) -> None:
        """All rows, or the text rows among them."""
        heads, to, rows = list(self.patched), _as_heads(out[query.start : query.end]), query.end - query.start
        if self.plan.queries == "all":
            inputs = self._inputs(q, k, v, keys.prior, keys.layout)
            if query.row in step.own:
                other_heads(inputs, heads, to)
            none = torch.zeros(0, dtype=torch.int64, device=q.device)
            choose_rows(q.device)(inputs, heads, keys.seen, None, none, out[query.start : query.end])
            return
        text = keys.prior[0, query.past :].isnan().nonzero()[:, 0]
        if len(text):
            inputs = self._inputs(q, k, v, keys.prior, keys.layout, self._running(v, keys) if rows > 1 else None)
            result = patched_heads(inputs, heads)[:, :, text]
            to[:, torch.tensor(heads, device=to.device)[:, None], text] = result.to(to.dtype)

    def _running(self, v: torch.Tensor, keys: RequestKeys) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the KV heads that serve patched heads."""
        assert keys.layout is not None and keys.seen is not None
        values = keys.layout.keys(v, 2, True)
        values = values if len(self.touched) == values.shape[1] else values[:, self.touched]
        return running_summary(keys.layout.keys(keys.prior, 1, True), values, keys.seen.shares)

    def _inputs(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        prior: torch.Tensor,
        layout: Layout | None,
        running: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> AttentionInputs:
        scores = PriorScores(prior, self.level)
        return AttentionInputs(
            q, k, v, self.scale, scores, self.mask, layout=layout, listed=self.patched, running=running
        )

    def _exact(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        prior: torch.Tensor,
        query: QuerySpan,
        out: torch.Tensor,
    ) -> None:
        """As transformers would compute it: the rows of the prompt as one call, every later row as a call of its own."""
        split = min(max(query.request.prompt - query.past, 0), query.end - query.start)
        calls = [(0, split)] if split else []
        calls += [(i, i + 1) for i in range(split, query.end - query.start)]
        for first, end in calls:
            keys = query.past + end
            self._call(q[:, :, first:end], k[:, :, :keys], v[:, :, :keys], prior[:, :keys], query, first, out)

    def _call(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        prior: torch.Tensor,
        query: QuerySpan,
        first: int,
        out: torch.Tensor,
    ) -> None:
        n, past = q.shape[2], k.shape[2] - q.shape[2]
        rows = torch.ones(1, n, dtype=torch.bool, device=q.device)
        if self.plan.queries == "last":
            rows[0, : max(query.request.prompt - 1 - past, 0)] = False
        elif self.plan.queries == "after_image":
            rows &= prior[:, past:].isnan()
        if prior.isnan().all() or not rows.any():
            return
        call = Call(CacheState(prior), past, None if bool(rows.all()) else rows, self.plan.queries == "after_image")
        inputs = collect_inputs(self.index, self.layer_plan, call, q, k, v, None, self.scale)
        result = any_mask_attention(inputs)[0].transpose(0, 1)  # (n, H, D)
        at = rows[0].nonzero()[:, 0]
        out[query.start + first + at] = result[at].to(out.dtype)


def _as_heads(out: torch.Tensor) -> torch.Tensor:
    """Rows (n, H, D) as a view (1, H, n, D)."""
    return out.transpose(0, 1)[None]
