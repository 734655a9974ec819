"""The benchmark for people: tables in Markdown and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..disk import disk_errors, write_json
from .charts import Draw, lines, png

HEAD = (
    "model", "visual tokens", "at once", "output tokens/s", "decode tokens/s", "byte model", "requests/s",
    "first token", "per token (TPOT)", "between tokens (ITL)",
)  # fmt: skip
MODELS = ("model", "mode", "layers", "heads", "whole KV groups", "vLLM's maximum concurrency", "peak memory")
KV = (
    "model",
    "visual tokens",
    "text tokens",
    "KV per request",
    "by arithmetic",
    "to the original",
    "fit into the pool",
)
LEGEND = (
    "Figures are medians over the repeats; ratios (x) are to the original within one repeat, median [lowest, highest]. For "
    "tokens/s and requests/s more is better, for times (ms) less. `decode tokens/s` counts the times in which all requests "
    "decode and none is in prefill (-: there were none). `byte model` is the ratio that decoding would have if reading weights "
    "and KV cache were all it does. KV per request is measured in whole blocks of the pool with one request alone."
)


def write_bench(report: Mapping[str, Any], out: Path) -> list[Path]:
    """`bench.json`, `bench.md` and charts; what was written."""
    with disk_errors(f"cannot write {out}"):
        write_json(out / "bench.json", report)
        pictures = []
        for name, draw in charts(report).items():
            pictures.append(out / f"bench-{name}.png")
            png(pictures[-1], draw, (6.4, 4.0))
        text = markdown(report, [p.name for p in pictures])
        (out / "bench.md").write_text(text, encoding="utf-8")
    return [out / "bench.json", out / "bench.md", *pictures]


def markdown(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The whole benchmark."""
    return "\n".join(["# lostattn bench serve", "", *body(report), *(f"![{p}]({p})\n" for p in pictures), ""])


def body(report: Mapping[str, Any]) -> list[str]:
    """Its tables and conditions, without a title."""
    settings = report["settings"]
    load = (
        f"Load by vLLM's serving benchmark: one random picture and {settings['text_tokens']} random text tokens a request, "
        f"{settings['output_tokens']} output tokens, {settings['repeats']} repeats; servers "
        f"{'all alive, one under load at a time, taking turns within every load' if report['together'] else 'one by one'}. "
        f"vLLM options: `{' '.join(report['options'])}`."
    )
    return [
        load, "", *table(MODELS, model_rows(report)), "", *table(HEAD, speed_rows(report)), "",
        *table(KV, kv_rows(report)), "", LEGEND, "", conditions(report), "",
    ]  # fmt: skip


def conditions(report: Mapping[str, Any]) -> str:
    """Versions and hardware in a sentence."""
    return f"Versions: {', '.join(f'{k} {v}' for k, v in report['versions'].items())}. Hardware: {report['hardware']}."


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    cells = [[c.replace("|", "\\|") for c in row] for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in cells)]


def model_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Plan, capacity and memory of every model."""
    return [
        [m["name"], m["plan"]["mode"], m["plan"]["layers"], m["plan"]["heads"], m["plan"]["whole_groups"],
         f"{m['server']['max_concurrency']:.2f} of {m['server']['longest']} tokens", size_text(m["server"].get("peak_memory", 0))]
        for m in report["models"]
    ]  # fmt: skip


def speed_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row per size, concurrency and model."""
    out = []
    for row in report["summary"]:
        cell = {
            f: _cell(row["figures"][f], row["ratios"].get(f), "ms" if f.endswith("_ms") else "") for f in row["figures"]
        }
        predicted = row["predicted_decode_ratio"]
        out.append(
            [row["side"], str(row["visual"]), str(row["concurrency"]), cell["output_tokens_per_s"],
             cell["decode_tokens_per_s"], f"{predicted:.2f}x" if predicted else "", cell["requests_per_s"],
             cell["ttft_ms"], cell["tpot_ms"], cell["itl_ms"]]
        )  # fmt: skip
    return out


def _cell(value: Mapping[str, Any] | None, ratio: Mapping[str, Any] | None, unit: str) -> str:
    if value is None:
        return "-"
    text = f"{number_text(value['median'])} {unit}".strip()
    return text if ratio is None else f"{text}, {ratio_text(ratio)}"


def ratio_text(ratio: Mapping[str, Any]) -> str:
    """1.23x [1.20, 1.31]."""
    return f"{ratio['median']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def number_text(value: float) -> str:
    """Three figures or whole numbers."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def kv_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Measured and predicted KV bytes of one request."""
    base = {row["visual"]: row["bytes"] for row in report["kv"] if row["side"] == report["base"]}
    return [
        [r["side"], str(r["visual"]), str(r["text"]), size_text(r["bytes"]), size_text(r["predicted_bytes"]),
         f"{r['bytes'] / base[r['visual']]:.2f}x" if base.get(r["visual"]) else "-", str(r["fit"])]
        for r in report["kv"]
    ]  # fmt: skip


def size_text(count: float) -> str:
    """Bytes as KiB, MiB or GiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1024:.0f} KiB"


def charts(report: Mapping[str, Any]) -> dict[str, Draw]:
    """Throughput against visual tokens at the largest concurrency, against concurrency at the largest picture; capacity."""
    rows, names = report["summary"], [m["name"] for m in report["models"]]
    most, largest = max(r["concurrency"] for r in rows), max(r["visual"] for r in rows)
    at_most = [r for r in rows if r["concurrency"] == most]
    at_largest = [r for r in rows if r["visual"] == largest]
    first = [r for r in rows if r["concurrency"] == min(r["concurrency"] for r in rows)]
    fit = {n: [(k["visual"], *[k["fit"]] * 3) for k in report["kv"] if k["side"] == n and k["fit"]] for n in names}
    return {
        "visual": lines(
            f"Throughput, {most} at once", "visual tokens per request", "output tokens/s",
            _series(at_most, names, "visual", "output_tokens_per_s"),
        ),
        "concurrency": lines(
            f"Throughput, {largest} visual tokens", "requests at once", "output tokens/s",
            _series(at_largest, names, "concurrency", "output_tokens_per_s"),
        ),
        "ttft": lines(
            f"Time to first token, {first[0]['concurrency']} at once", "visual tokens per request", "ms",
            _series(first, names, "visual", "ttft_ms"),
        ),
        "capacity": lines("Requests that fit into the KV pool", "visual tokens per request", "requests", fit),
    }  # fmt: skip


def _series(rows: Sequence[Mapping[str, Any]], names: Sequence[str], x: str, figure: str) -> dict[str, list[Any]]:
    return {
        name: [
            (r[x], f["median"], f["low"], f["high"]) for r in rows if r["side"] == name and (f := r["figures"][figure])
        ]
        for name in names
    }
