"""From single loads to figures: medians, and ratios to the original over paired repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..byte_model import decode_bytes, kv_bytes, read_step_weights
from ..host_times import HostTimes
from ..sides import Side
from ..stats import spread
from .decode import steady_decode
from .settings import BenchSettings

# figure -> whether larger is better
FIGURES = {
    "output_tokens_per_s": True,
    "requests_per_s": True,
    "decode_tokens_per_s": True,
    "ttft_ms": False,
    "tpot_ms": False,
    "itl_ms": False,
    "schedule_ms": False,
    "metadata_ms": False,
    "host_ms": False,
}
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def measured(raw: Mapping[str, Any], concurrency: int) -> dict[str, Any]:
    """The figures of one load from what vLLM's benchmark gave; times in ms, medians over its requests."""
    steady = steady_decode(raw["start_times"], raw["ttfts"], raw["itls"], concurrency)
    return {
        "requests": raw["completed"],
        "seconds": raw["duration"],
        "input_tokens": max(raw["input_lens"]),
        "output_tokens_per_s": raw["output_throughput"],
        "requests_per_s": raw["request_throughput"],
        "decode_tokens_per_s": steady.tokens_per_s if steady else None,
        "decode_seconds": steady.seconds if steady else 0.0,
        "ttft_ms": raw["median_ttft_ms"],
        "tpot_ms": raw["median_tpot_ms"],
        "itl_ms": raw["median_itl_ms"],
        "ttft_p99_ms": raw["p99_ttft_ms"],
        "tpot_p99_ms": raw["p99_tpot_ms"],
        "itl_p99_ms": raw["p99_itl_ms"],
    }


def host_figures(found: HostTimes | None) -> dict[str, Any]:
    """Host time of a decode step in ms, as figures of a load; None where it was not seen."""
    if found is None:
        return {"schedule_ms": None, "metadata_ms": None, "host_ms": None, "host_steps": 0}
    return {
        "schedule_ms": found.schedule,
        "metadata_ms": found.metadata,
        "host_ms": found.host,
        "host_steps": found.steps,
    }


def summarize(rows: Sequence[Mapping[str, Any]], base: str) -> list[dict[str, Any]]:
    """One row per model, size and concurrency: spread of every figure, and of its ratio to the original's.

    A ratio pairs the two models within one repeat. Figures that a repeat lacks (no steady decoding) are left out; a figure
    that all lack is None.
    """
    results: dict[tuple[int, int, str], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        results.setdefault((row["visual"], row["concurrency"], row["side"]), {})[row["repeat"]] = row
    out = []
    for (visual, concurrency, side), mine in sorted(results.items(), key=lambda x: (x[0][0], x[0][1], x[0][2] != base)):
        theirs = results.get((visual, concurrency, base), {})
        out.append(
            {
                "side": side,
                "visual": visual,
                "concurrency": concurrency,
                "repeats": len(mine),
                "figures": {f: _spread([r.get(f) for r in mine.values()]) for f in FIGURES},
                "ratios": {f: _spread(_ratios(mine, theirs, f)) for f in FIGURES} if side != base else {},
            }
        )
    return out


def _ratios(mine: Mapping[int, Mapping[str, Any]], theirs: Mapping[int, Mapping[str, Any]], figure: str) -> list[Any]:
    pairs = ((mine[r].get(figure), theirs[r].get(figure)) for r in sorted(mine.keys() & theirs.keys()))
    return [a / b for a, b in pairs if a and b]


def _spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    there = [v for v in values if v is not None]
    return asdict(spread(there)) if there else None


def predicted_kv(side: Side, dtype: str | None, text: int, visual: int) -> int:
    """KV bytes of a request by arithmetic, block sizes apart."""
    scale = DTYPE_BYTES.get(dtype or "", side.shape.dtype_bytes) / side.shape.dtype_bytes
    return round(kv_bytes(side.shape, side.plan, text, visual) * scale)


def predicted_decode(sides: Sequence[Side], visual: int, batch: int, settings: BenchSettings) -> dict[str, float]:
    """Model -> how much faster it decodes than the original if reading memory is all that decoding does."""
    text = settings.text_tokens + settings.output_tokens // 2
    base = sides[0]
    weights = read_step_weights(base.folder, base.shape).read(batch)
    first = decode_bytes(base.shape, None, weights, text, visual, batch).total
    return {
        side.name: first / decode_bytes(side.shape, side.plan, weights, text, visual, batch).total for side in sides[1:]
    }
