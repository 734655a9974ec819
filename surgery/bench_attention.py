"""`lostattn bench attention`: the closed form against torch's SDPA, same shapes, side by side in one run."""

from __future__ import annotations

import logging
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F

from ..patches.anymask import any_mask_attention
from ..patches.attention import closed_pays
from ..patches.attention_inputs import AttentionInputs, Layout, PriorScores
from ..patches.closed import closed_attention
from ..patches.summary import visual_summary

logger = logging.getLogger(__name__)
HEADS, KV_HEADS, DIM = 28, 4, 128  # one attention layer of Qwen2.5-VL-7B
TEXT_BEFORE, TEXT_AFTER = 32, 96
PLANS: dict[str, list[int]] = {
    "all heads": list(range(HEADS)),
    "one whole group": list(range(HEADS // KV_HEADS)),
    "scattered 30 %": [h for h in range(HEADS) if h % 10 in (1, 4, 7)],
}


@dataclass(frozen=True)
class Row:
    """One comparison. Times in milliseconds; ratio = SAP / SDPA, median of the pairs, with the middle half of them."""

    phase: str
    visual: int
    plan: str
    path: str
    sdpa_ms: float
    sap_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    pairs: int


def bench_attention(
    visual: Iterable[int] = (256, 512, 1024, 2048, 4096, 8192),
    threads: int = 1,
    seconds: float = 1.5,
    dtype: torch.dtype = torch.float32,
) -> dict[str, object]:
    """Time prefill and decode of every plan at every number of visual tokens.

    SDPA and SAP take turns, so that a drift of the machine meets both. With one thread CPU time is counted, which other
    programs on the machine do not disturb; with more, wall time.

    Args:
        visual: numbers of visual tokens of the one image.
        threads: torch threads.
        seconds: time spent on each comparison, at least 5 pairs.

    Returns:
        `rows` (list of dicts), `environment`, and `growth`: time of all-heads prefill at 8192 over 4096, if both ran.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows: list[Row] = []
    try:
        with torch.inference_mode():
            for count in visual:
                for phase in ("prefill", "decode"):
                    for plan, heads in PLANS.items():
                        logger.info(f"{phase}, {count} visual tokens, {plan}")
                        rows.append(_compare(phase, count, plan, heads, threads, seconds, dtype))
    finally:
        torch.set_num_threads(before)
    return {"rows": [asdict(r) for r in rows], "growth": _growth(rows), "environment": _environment(threads, dtype)}


def make_job(phase: str, visual: int, heads: list[int], dtype: torch.dtype, device: str = "cpu") -> AttentionInputs:
    """One image between two texts, random numbers; `decode` is one query row with the image's summary at hand."""
    torch.manual_seed(0)
    keys = TEXT_BEFORE + visual + TEXT_AFTER
    rows = keys if phase == "prefill" else 1
    is_visual = torch.zeros(1, keys, dtype=torch.bool, device=device)
    is_visual[:, TEXT_BEFORE : TEXT_BEFORE + visual] = True
    prior = torch.randn(1, keys).to(device).masked_fill(~is_visual, torch.nan)
    flags = torch.zeros(HEADS, dtype=torch.bool, device=device)
    flags[heads] = True
    q = torch.randn(1, HEADS, rows, DIM).to(device, dtype)
    k, v = (torch.randn(1, KV_HEADS, keys, DIM).to(device, dtype) for _ in range(2))
    inputs = AttentionInputs(
        q, k, v, DIM**-0.5, PriorScores(prior), flags, layout=Layout.of(is_visual), listed=tuple(heads)
    )
    if phase == "decode":
        assert inputs.layout is not None
        inputs = replace(inputs, summary=visual_summary(prior, v, inputs.layout))
    return inputs


def _compare(
    phase: str, visual: int, plan: str, heads: list[int], threads: int, seconds: float, dtype: torch.dtype
) -> Row:
    inputs = make_job(phase, visual, heads, dtype)
    path = "closed" if closed_pays(inputs) else "any_mask"
    form = closed_attention if path == "closed" else any_mask_attention

    def sdpa() -> torch.Tensor:
        return F.scaled_dot_product_attention(
            inputs.q, inputs.k, inputs.v, is_causal=phase == "prefill", enable_gqa=True
        )

    plain, patched = _pairs(
        sdpa, lambda: form(inputs), time.process_time if threads == 1 else time.perf_counter, seconds
    )
    ratios = sorted(b / a for a, b in zip(plain, patched, strict=True))
    quarter = len(ratios) // 4
    return Row(
        phase,
        visual,
        plan,
        path,
        1e3 * statistics.median(plain),
        1e3 * statistics.median(patched),
        statistics.median(ratios),
        ratios[quarter],
        ratios[-1 - quarter],
        len(ratios),
    )


def _pairs(
    a: Callable[[], object], b: Callable[[], object], clock: Callable[[], float], seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds per call of a and b, taking turns; calls shorter than a millisecond are timed in batches."""
    repeat = max(1, int(1e-3 / max(_once(a, clock, 1), 1e-6)))
    _once(b, clock, repeat)
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - start < seconds:
        order = ((a, times[0]), (b, times[1])) if len(times[0]) % 2 == 0 else ((b, times[1]), (a, times[0]))
        for function, timed in order:
            timed.append(_once(function, clock, repeat))
    return times


def _once(function: Callable[[], object], clock: Callable[[], float], repeat: int) -> float:
    start = clock()
    for _ in range(repeat):
        function()
    return (clock() - start) / repeat


def _growth(rows: list[Row]) -> float | None:
    times = {r.visual: r.sap_ms for r in rows if r.phase == "prefill" and r.plan == "all heads"}
    return times[8192] / times[4096] if 4096 in times and 8192 in times else None


def _environment(threads: int, dtype: torch.dtype) -> dict[str, object]:
    return {
        "shape": f"B=1 H={HEADS} Hkv={KV_HEADS} D={DIM}, text {TEXT_BEFORE} before and {TEXT_AFTER} behind the image",
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "clock": "CPU time" if threads == 1 else "wall time",
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
