"""Steps of an engine as the Triton kernels see them, drawn at random on any device, and what the definition says of them.

Every slot that no kernel may read holds NaN; blocks that lie inside an image are the null block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from lostattn.patches.attention_inputs import AttentionInputs, PriorScores
from lostattn.patches.eager import eager_attention
from lostattn.serving.engine.cache.pages import Pages
from lostattn.serving.engine.kernels.triton_common import PagedCache
from lostattn.serving.engine.kernels.triton_fp8_slots import pack_fp8, unpack_fp8
from lostattn.serving.engine.kernels.triton_prepare import Spans, Text, prepare

FP8 = torch.float8_e4m3fn
# of outputs near 1: a few roundings of the type (weights and result are rounded)
LIMIT = {torch.float32: 4e-6, torch.float16: 3e-3, torch.bfloat16: 2.5e-2}
ORDERS = ("NHD", "HND", "halves", "columns")


class Request(NamedTuple):
    """`length` tokens after the step, of which the last `new` are its rows; visual spans of positions."""

    length: int
    new: int
    spans: tuple[tuple[int, int], ...] = ()


@dataclass
class Scene:
    """One step of one layer. `keys`, `values` (length, Hkv, D) float64 and `priors` (length,), NaN on text, by request."""

    requests: list[Request]
    kind: str
    cache: PagedCache
    pages: Pages
    table: torch.Tensor
    lengths: torch.Tensor
    starts: torch.Tensor
    spans: Spans
    q: torch.Tensor
    new_v: torch.Tensor
    prior: torch.Tensor
    store: torch.Tensor
    level: torch.Tensor
    scale: float
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    priors: list[torch.Tensor]

    @property
    def size(self) -> int:
        return self.cache.k.shape[2]

    def text(self, programs: int = 40) -> Text:
        """What `prepare` makes of it."""
        text = Text.of(len(self.requests), self.table.shape[1], self.size, self.table.device)
        for buffer in (text.blocks, text.at, text.words):
            buffer.fill_(-77)  # to be written before it is read
        prepare(text, self.table, self.lengths, self.spans, self.cache.k.shape[1], programs, self.starts)
        return text

    def slot(self, request: int, position: int) -> int:
        """Flat slot."""
        return int(self.table[request, position // self.size]) * self.size + position % self.size

    def sums(self, request: int, end: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Log mass and mean (Hkv, D) of the visual tokens below `end`, float64; None if there are none."""
        p = self.priors[request][:end]
        seen = ~p.isnan()
        if not seen.any():
            return None
        return torch.logsumexp(p[seen], 0), torch.einsum(
            "t,tgd->gd", p[seen].softmax(0), self.values[request][:end][seen]
        )

    def read_slots(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Summaries in flat slots, by the readers in plain torch."""
        at = slots // self.size, slots % self.size
        if not self.cache.is_fp8:
            return self.pages.read_summaries(at)
        return unpack_fp8(*(x.view(torch.uint8)[at[0], :, at[1]] for x in (self.cache.k, self.cache.v)))

    def expected(self, request: int, wanted: torch.Tensor | None = None) -> torch.Tensor:
        """Rows (new, H, D) of the eager oracle in float64."""
        heads = torch.ones(len(self.level), dtype=torch.bool) if wanted is None else wanted.bool().cpu()
        first = int(self.starts[request])
        q = self.q[first : first + self.requests[request].new].double().cpu()
        k, v = self.keys[request].transpose(0, 1)[None], self.values[request].transpose(0, 1)[None]
        scores = PriorScores(self.priors[request][None], self.level.double().cpu())
        return eager_attention(AttentionInputs(q.transpose(0, 1)[None], k, v, self.scale, scores, heads))[0][
            0
        ].transpose(0, 1)


def make_scene(
    requests: list[Request],
    seed: int = 0,
    *,
    kind: str = "summary",
    size: int = 16,
    kv_heads: int = 2,
    group: int = 3,
    d: int = 64,
    dtype: torch.dtype = torch.float32,
    cache_dtype: torch.dtype | None = None,
    order: str = "NHD",
    spread: float = 1.0,
    device: str = "cpu",
) -> Scene:
    """A layer with summaries in its cache ("summary") or all keys ("mixed") in front of a step."""
    rng = torch.Generator().manual_seed(seed)
    cache_dtype = cache_dtype or dtype
    columns = max(-(-r.length // size) for r in requests) + 1
    total = len(requests) * columns + 2
    scales = [torch.rand(kv_heads, generator=rng) + 0.5 for _ in range(2)] if cache_dtype == FP8 else [None, None]
    pages, k, v = _empty_cache(total, kv_heads, size, d, cache_dtype, order)
    cache = PagedCache(k, v, *scales)
    free = (torch.randperm(total - 2, generator=rng) + 1).tolist()
    table = torch.full((len(requests), columns), total - 1, dtype=torch.int32)  # a block that holds NaN
    scene = Scene(
        requests,
        kind,
        cache,
        pages,
        table,
        _ints([r.length for r in requests]),
        _ints([0, *torch.tensor([r.new for r in requests]).cumsum(0).tolist()]),
        _spans(requests),
        *[None] * 4,  # type: ignore[arg-type]
        torch.randn(kv_heads * group, generator=rng),
        d**-0.5,
        [],
        [],
        [],
    )
    store = torch.full((total * size,), torch.nan)
    for i, request in enumerate(requests):
        _draw(scene, request, rng, spread, dtype)
        for column in range(-(-request.length // size)):
            table[i, column] = 0 if kind == "summary" and _is_null(request, column, size) else free.pop()
        _fill(scene, i, store)
    rows = int(scene.starts[-1])
    scene.q = torch.randn(rows + 3, kv_heads * group, 2 * d, generator=rng).to(dtype)[..., :d]
    new = [(r.length - r.new, r.length) for r in requests]
    scene.new_v = torch.cat([v[a:b] for v, (a, b) in zip(scene.values, new, strict=True)]).to(dtype)
    scene.prior = torch.cat([p[a:b] for p, (a, b) in zip(scene.priors, new, strict=True)]).float()
    scene.store = store
    return _moved(scene, device, order)


def _empty_cache(
    total: int, kv_heads: int, size: int, d: int, dtype: torch.dtype, order: str
) -> tuple[Pages, torch.Tensor, torch.Tensor]:
    nan = torch.full((total, kv_heads, size, 2 * d), torch.nan).to(dtype)
    if order == "halves":  # keys and values apart
        nan = torch.full((2, total, size, kv_heads, d), torch.nan).to(dtype)
        k, v = nan.transpose(2, 3)
        return _Halves(nan, False), k, v
    if order == "NHD":
        nan = torch.full((total, size, kv_heads, 2 * d), torch.nan).to(dtype).transpose(1, 2)
    pages = Pages(nan, order == "columns")
    return pages, *pages.own


class _Halves(Pages):
    """Keys and values in two tensors, (2, blocks, size, H, D)."""

    def views(self, cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        k, v = cache.transpose(2, 3)
        return k, v


def _ints(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def _spans(requests: list[Request]) -> Spans:
    """With a few numbers behind the last that are not to be read."""
    flat = [s for r in requests for s in r.spans]
    at = [0, *torch.tensor([len(r.spans) for r in requests]).cumsum(0).tolist()]
    return Spans(_ints(at), *(_ints([*(s[i] for s in flat), 7, 7]) for i in range(2)))


def _is_visual(request: Request, position: int) -> bool:
    return any(a <= position < b for a, b in request.spans)


def _is_null(request: Request, column: int, size: int) -> bool:
    """No text in the block, and neither the last visual token of the request so far nor that in front of the step."""
    low, high = column * size, min((column + 1) * size, request.length)
    kept = {
        max((x for x in range(end) if _is_visual(request, x)), default=-1)
        for end in (request.length, request.length - request.new)
    }
    return all(_is_visual(request, x) and x not in kept for x in range(low, high))


def _draw(scene: Scene, request: Request, rng: torch.Generator, spread: float, dtype: torch.dtype) -> None:
    kv_heads, d = scene.cache.k.shape[1], scene.cache.k.shape[3]
    k, v = (torch.randn(request.length, kv_heads, d, generator=rng).to(dtype).double() for _ in range(2))
    p = (spread * torch.randn(request.length, generator=rng)).double()
    text = torch.tensor([not _is_visual(request, x) for x in range(request.length)], dtype=torch.bool)
    p[text] = torch.nan
    scene.priors.append(p)
    if scene.cache.k_scale is not None and scene.cache.v_scale is not None:  # what is known from the cache alone
        for x, s in ((k, scene.cache.k_scale), (v, scene.cache.v_scale)):
            kept = text.clone()
            if scene.kind == "mixed":
                kept[: request.length - request.new] = True
            x[kept] = (x[kept].float() / s[:, None]).to(FP8).float().double() * s[:, None].double()
    elif scene.cache.k.dtype != dtype:
        k[text], v[text] = (x[text].to(scene.cache.k.dtype).double() for x in (k, v))
    scene.keys.append(k)
    scene.values.append(v)


def _fill(scene: Scene, i: int, store: torch.Tensor) -> None:
    request, cache = scene.requests[i], scene.cache
    visual = {x for x in range(request.length) if _is_visual(request, x)}
    for x in range(request.length):
        slot = scene.slot(i, x)
        if x in visual:
            store[slot] = scene.priors[i][x].float()
        if scene.kind == "mixed" or x not in visual:
            for to, source, s in ((cache.k, scene.keys[i], cache.k_scale), (cache.v, scene.values[i], cache.v_scale)):
                number = source[x] if s is None else source[x] / s[:, None].double()
                to[slot // scene.size, :, slot % scene.size] = number.float().to(to.dtype)
    if scene.kind == "mixed":
        return
    # a whole decode row finds the summary of all in front, a chunk that of what lies in front of it
    for end in {request.length - request.new, request.length if request.new <= 1 else 0}:
        found, last = scene.sums(i, end), max((x for x in visual if x < end), default=-1)
        if found is not None:
            write_slot(scene, scene.slot(i, last), found[0].float(), found[1].float())


def write_slot(scene: Scene, slot: int, log_mass: torch.Tensor, mean: torch.Tensor) -> None:
    """A summary into a flat slot by the writers in plain torch."""
    at, offset = torch.tensor([slot // scene.size]), torch.tensor([slot % scene.size])
    if not scene.cache.is_fp8:
        scene.pages.write_summaries((at, offset), log_mass[None], mean[None])
        return
    for to, bytes_ in zip((scene.cache.k, scene.cache.v), pack_fp8(log_mass[None], mean[None]), strict=True):
        to.view(torch.uint8)[at, :, offset] = bytes_


def _moved(scene: Scene, device: str, order: str) -> Scene:
    if device == "cpu":
        return scene
    for name in ("table", "lengths", "starts", "q", "new_v", "prior", "store", "level"):
        setattr(scene, name, getattr(scene, name).to(device))
    scene.spans = Spans(*(x.to(device) for x in scene.spans))
    pages = type(scene.pages)(scene.pages.cache.to(device), order == "columns")
    scales = (None if s is None else s.to(device) for s in (scene.cache.k_scale, scene.cache.v_scale))
    scene.pages, scene.cache = pages, PagedCache(*pages.own, *scales)
    return scene


@st.composite
def drawn(draw: st.DrawFn, most: int = 90, step: bool = False) -> Request:
    """A request: cuts anywhere, neighbours too; the last token is text for a decode step."""
    length = draw(st.integers(1, most))
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    spans = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False) if b > a]
    new = draw(st.integers(1, length)) if step else 1
    if not step:
        spans = [(a, min(b, length - 1)) for a, b in spans if a < length - 1]
    return Request(length, new, tuple(spans))
