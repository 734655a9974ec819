"""`lostattn bench attention --device cuda`: one patched layer in Triton against the unpatched one, without vLLM."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch

from ...patches.errors import LostattnError
from ..hardware import hardware
from .attention_clock import median_us, peak_gb_s
from .attention_scene import (
    Call,
    LayerShape,
    Step,
    decode_call,
    decode_reference,
    prefill_call,
    prefill_reference,
    queries,
    random_summaries,
    sdpa_call,
)

QWEN = LayerShape(1, 1, 1)
WORKING_SET = 256 << 20  # bytes that calls of a graph read in turn: more than second-level caches hold
MOST_COPIES = 256
PREFILL_ROWS = 65536  # of a step, at most
LIMIT = 0.05  # largest error of bfloat16 outputs near 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One comparison of a layer.

    Attributes:
        phase: decode (one row a request) or prefill (all rows).
        us: the patched layer in Triton. paged_us: the same kernel with every token as text, so the unpatched layer over the
            paged cache (decode). sdpa_us: torch's flash attention over contiguous keys of all tokens.
        bytes: that the patched layer has to read and write. gb_s: these by `us`. bound: `us` by the time that the peak bandwidth
            needs for them, None if the peak is not known.
        error: largest error of the rows that were checked against float64.
    """

    phase: str
    requests: int
    visual: int
    text: int
    us: float
    paged_us: float | None
    sdpa_us: float
    bytes: int
    gb_s: float
    bound: float | None
    error: float


class _Place(NamedTuple):
    dtype: torch.dtype
    device: torch.device
    peak: float | None


def bench_device_attention(
    visual: Sequence[int],
    requests: Sequence[int],
    text: int,
    dtype: torch.dtype,
    device: torch.device,
    shape: LayerShape = QWEN,
) -> dict[str, object]:
    """Time decode steps and prefills of a layer of Qwen2.5-VL-7B's shape, every head patched.

    Every call of a decode step reads a cache of its own until more bytes have been read than a GPU's caches hold.

    Args:
        visual: visual tokens of each request's one image. requests: in a batch. text: text tokens of a request.
        dtype: bfloat16 or float16.
        device: a GPU, or a CPU under Triton's interpreter, to try the code on tiny shapes: its times mean nothing.
        shape: heads and head size.

    Returns:
        `rows` (list of dicts, see `Row`; `skipped` instead of times where the memory does not suffice) and `environment`.

    Raises:
        LostattnError: a result is wrong.
    """
    place, rows = _Place(dtype, device, peak_gb_s(device)), []
    for count in requests:
        for tokens in visual:
            layer = LayerShape(count, tokens, text, shape.heads, shape.kv_heads, shape.d)
            for phase, measure in (("decode", _decode), ("prefill", _prefill)):
                if phase == "prefill" and count * layer.keys > PREFILL_ROWS:
                    continue
                logger.info(f"{phase}, {count} requests of {tokens} visual tokens")
                rows.append(_row(phase, measure, layer, place))
    return {"rows": rows, "environment": _environment(shape, place)}


def _row(phase: str, measure: Callable[..., Row], layer: LayerShape, place: _Place) -> dict[str, object]:
    try:
        row = measure(layer, place)
    except torch.cuda.OutOfMemoryError:
        row = None
    finally:
        if place.device.type == "cuda":
            torch.cuda.empty_cache()
    if row is None:
        return {"phase": phase, "requests": layer.requests, "visual": layer.visual, "skipped": "not enough memory"}
    if not row.error <= LIMIT:
        raise LostattnError(
            f"{phase} of {layer} is {row.error:.1e} off on this GPU: do not serve with these kernels, unset LOSTATTN_KERNELS"
        )
    return asdict(row)


def _copies(size: int, device: torch.device) -> int:
    """How many caches of `size` bytes calls read in turn."""
    return 1 if device.type != "cuda" else max(1, min(-(-WORKING_SET // size), MOST_COPIES))


def _decode(layer: LayerShape, place: _Place) -> Row:
    dtype, device = place.dtype, place.device
    q, width = queries(layer, 1, dtype, device), 2 * layer.kv_heads * layer.d * dtype.itemsize
    rows, summary = 2 * layer.heads * layer.d * dtype.itemsize, layer.kv_heads * (layer.d + 1) * 4
    us, error = _decode_us(layer, True, q, layer.requests * layer.text * width)
    paged_us, paged_error = _decode_us(layer, False, q, layer.requests * layer.keys * width)
    shape = layer.requests, layer.kv_heads, layer.keys, layer.d
    calls: list[Call] = []
    for _ in range(_copies(layer.requests * layer.keys * width, device)):
        k, v = (torch.randn(shape, dtype=dtype, device=device) for _ in range(2))
        calls.append(sdpa_call(q[:, :, None], k, v, False))
    needed = layer.requests * (layer.text * width + summary + rows)
    return _made("decode", layer, (us, paged_us, median_us(calls, device)), needed, place, max(error, paged_error))


def _decode_us(layer: LayerShape, patched: bool, q: torch.Tensor, size: int) -> tuple[float, float]:
    """Microseconds of a step, and the largest error of its first rows."""
    step, table = Step(layer, patched, 1, q.device), random_summaries(layer, q.device, patched)
    first = step.cache(q.dtype)
    call, out = decode_call(step, first, q, table)
    call()
    error = float((out[:2].double() - decode_reference(step, first, q, table, 2)).abs().max())
    calls = [call] + [decode_call(step, step.cache(q.dtype), q, table)[0] for _ in range(_copies(size, q.device) - 1)]
    return median_us(calls, q.device), error


def _prefill(layer: LayerShape, place: _Place) -> Row:
    dtype, device = place.dtype, place.device
    step = Step(layer, True, layer.keys, device)
    cache, q = step.cache(dtype), queries(layer, layer.keys, dtype, device)
    k, v = (step.tokens(x).transpose(1, 2).flatten(0, 1) for x in (cache.k, cache.v))  # (n, Hkv, D)
    visual = torch.zeros(layer.keys, dtype=torch.bool, device=device)
    visual[step.span[0] : step.span[1]] = True
    prior = torch.randn(len(q), device=device).masked_fill(~visual.repeat(layer.requests), torch.nan)
    call, out = prefill_call(step, cache, q, v, prior)
    call()
    rows = sorted({0, step.span[0], (step.span[0] + step.span[1]) // 2, layer.keys - 1})
    error = float((out[rows].double() - prefill_reference(q, k, v, prior, rows)).abs().max())
    by_head = [x.unflatten(0, (layer.requests, layer.keys)).transpose(1, 2).contiguous() for x in (q, k, v)]
    width = layer.kv_heads * layer.d * dtype.itemsize
    # queries and outputs, values of all and keys of text, means written and read once
    needed = len(q) * (2 * layer.heads * layer.d * dtype.itemsize + width) + layer.requests * layer.text * width
    needed += 2 * layer.requests * layer.visual * layer.kv_heads * layer.d * 4
    times = median_us([call], device), None, median_us([sdpa_call(by_head[0], by_head[1], by_head[2], True)], device)
    return _made("prefill", layer, times, needed, place, error)


def _made(
    phase: str, layer: LayerShape, us: tuple[float, float | None, float], needed: int, place: _Place, error: float
) -> Row:
    gb_s = needed / us[0] / 1e3
    bound = None if place.peak is None else place.peak / gb_s
    return Row(phase, layer.requests, layer.visual, layer.text, *us, needed, gb_s, bound, error)


def _environment(shape: LayerShape, place: _Place) -> dict[str, object]:
    import triton

    on_gpu = place.device.type == "cuda"
    return {
        "shape": f"H={shape.heads} Hkv={shape.kv_heads} D={shape.d}, all heads patched, one image a request, blocks of 16",
        "dtype": str(place.dtype).removeprefix("torch."),
        "clock": "median of CUDA events around replays of a CUDA graph" if on_gpu else "interpreter: no measure",
        "peak GB/s": place.peak,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "hardware": hardware(),
    }
