"""The benchmark for people: tables in Markdown and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..disk import disk_errors, write_json
from ..pages.charts import Draw, lines, png, svg
from ..pages.words import named, number_text, ratio_text, size_text, table

__all__ = ["number_text", "ratio_text", "size_text", "table"]

HEAD = (
    "model",
    "visual tokens",
    "at once",
    "output tokens/s",
    "decode tokens/s",
    "byte model",
    "requests/s",
    "first token",
    "per token (TPOT)",
    "between tokens (ITL)",
)
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
HOST = ("model", "visual tokens", "at once", "schedule()", "attention metadata", "both")
HOST_NOTE = (
    "Host time of a decode step in vLLM's engine, medians over the steps in which all requests decode one token each: "
    "scheduling, and building the attention metadata of all KV-cache groups."
)
PREDICTED = (
    "model",
    "visual tokens",
    "at once",
    "output tokens/s",
    "decode tokens/s",
    "by the byte model",
    "KV per request",
    "by arithmetic",
)
PREDICTED_NOTE = (
    "All to the original. The byte model says how much faster decoding would be if reading weights and KV cache were all it "
    "does; the arithmetic counts the KV cache's bytes without the pool's blocks."
)
LEGEND = (
    "Figures are medians over the repeats; ratios (x) are to the original within one repeat, median [lowest, highest]. For "
    "tokens/s and requests/s more is better, for times (ms) less. `decode tokens/s` counts the times in which all requests "
    "decode and none is in prefill (-: there were none). `byte model` is the ratio that decoding would have if reading weights "
    "and KV cache were all it does. KV per request is measured in whole blocks of the pool with one request alone."
)


def write_bench(report: Mapping[str, Any], out: Path) -> list[Path]:
    """`bench.json`, `bench.md`, `bench.html` and charts; what was written."""
    with disk_errors(f"cannot write {out}"):
        write_json(out / "bench.json", report)
        pictures = []
        for name, draw in charts(report).items():
            pictures.append(out / f"bench-{name}.png")
            png(pictures[-1], draw, (6.4, 4.0))
        text = markdown(report, [p.name for p in pictures])
        (out / "bench.md").write_text(text, encoding="utf-8")
        (out / "bench.html").write_text(page(report), encoding="utf-8")
    return [out / "bench.json", out / "bench.md", *pictures, out / "bench.html"]


def page(report: Mapping[str, Any]) -> str:
    """The whole benchmark as one HTML page that stands alone."""
    from ..pages.render import render

    names = [m["name"] for m in report["models"]]
    others = f"{len(names) - 1} patched models" if len(names) > 2 else names[-1]
    facts = {
        "vLLM options": " ".join(report["options"]),
        "hardware": report["hardware"],
        "versions": named(report["versions"]),
    }
    return render(
        "bench", title=f"{names[0]} and {others} in vLLM", lead=lead(report), bench=context(report, True), facts=facts
    )


def lead(report: Mapping[str, Any]) -> str:
    """Throughput and memory of every patched model at the largest load, in a sentence."""
    stated = []
    for model in report["models"][1:]:
        result, where = headline(report, model["name"])
        if result:
            stated.append(
                f"{model['name']}: {', '.join(f'{k} {v}' for k, v in result.items())}{where and f' ({where})'}"
            )
    return f"{'; '.join(stated)}." if stated else "No load was measured."


def headline(report: Mapping[str, Any], name: str) -> tuple[dict[str, str], str]:
    """A patched model's throughput and KV cache to the original's at the largest load, and where that was."""
    rows = [r for r in report["summary"] if r["side"] == name]
    if not rows:
        return {}, ""
    last = max(rows, key=lambda r: (r["visual"], r["concurrency"]))
    ratio = last["ratios"].get("output_tokens_per_s")
    results = {"throughput": f"{ratio['median']:.2f}x" if ratio else "-"}
    kv = {r["side"]: r["bytes"] for r in report["kv"] if r["visual"] == last["visual"]}
    if name in kv:
        base = kv.get(report["base"])
        results["KV per request"] = size_text(kv[name]) + (f", {kv[name] / base:.2f}x" if base else "")
    return results, f"{last['visual']} visual tokens, {last['concurrency']} at once"


def context(report: Mapping[str, Any], unfolded: bool = False) -> dict[str, Any]:
    """What a page's section about the benchmark shows."""
    drawn = charts(report, legend=False)
    return {
        "names": [m["name"] for m in report["models"]],
        "open": unfolded,
        "load": body(report)[0],
        "charts": [svg(draw, (4.9, 3.2), f"chart of {name}") for name, draw in drawn.items()],
        "head": HEAD,
        "rows": speed_rows(report),
        "legend": LEGEND,
        "kv_head": KV,
        "kv": kv_rows(report),
        "models_head": MODELS,
        "models": model_rows(report),
        "predicted_head": PREDICTED,
        "predicted": prediction_rows(report),
        "predicted_note": PREDICTED_NOTE,
        "host_head": HOST,
        "host": host_rows(report),
        "host_note": HOST_NOTE,
    }


def prediction_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Measured ratios to the original beside predicted ones, at the most requests at once."""
    most = max((r["concurrency"] for r in report["summary"]), default=0)
    kv = {(r["side"], r["visual"]): r for r in report["kv"]}
    out = []
    for row in (r for r in report["summary"] if r["concurrency"] == most and r["side"] != report["base"]):
        ratios = [
            r and ratio_text(r) or "-" for r in map(row["ratios"].get, ("output_tokens_per_s", "decode_tokens_per_s"))
        ]
        mine, theirs = (kv.get((side, row["visual"]), {}) for side in (row["side"], report["base"]))
        shares = [
            f"{mine[k] / theirs[k]:.2f}x" if mine.get(k) and theirs.get(k) else "-"
            for k in ("bytes", "predicted_bytes")
        ]
        decode = f"{row['predicted_decode_ratio']:.2f}x" if row["predicted_decode_ratio"] else "-"
        out.append([row["side"], str(row["visual"]), str(most), *ratios, decode, *shares])
    return out


def markdown(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The whole benchmark."""
    return "\n".join(["# lostattn bench serve", "", *body(report), *(f"![{p}]({p})\n" for p in pictures), ""])


def body(report: Mapping[str, Any]) -> list[str]:
    """Its tables and conditions, without a title."""
    settings = report["settings"]
    shown = "video" if settings.get("videos") else "picture"
    load = (
        f"Load by vLLM's serving benchmark: one random {shown} and {settings['text_tokens']} random text tokens a request, "
        f"{settings['output_tokens']} output tokens, {settings['repeats']} repeats; servers "
        f"{'all alive, one under load at a time, taking turns within every load' if report['together'] else 'one by one'}. "
        f"vLLM options: `{' '.join(report['options'])}`."
    )
    return [
        load,
        "",
        *table(MODELS, model_rows(report)),
        "",
        *table(HEAD, speed_rows(report)),
        "",
        *_host(report),
        *table(KV, kv_rows(report)),
        "",
        LEGEND,
        "",
        conditions(report),
        "",
    ]


def _host(report: Mapping[str, Any]) -> list[str]:
    rows = host_rows(report)
    return [*table(HOST, rows), "", HOST_NOTE, ""] if rows else []


def conditions(report: Mapping[str, Any]) -> str:
    """Versions and hardware in a sentence."""
    return f"Versions: {named(report['versions'])}. Hardware: {report['hardware']}."


def model_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Plan, capacity and memory of every model."""
    return [
        [
            m["name"],
            m["plan"]["mode"],
            m["plan"]["layers"],
            m["plan"]["heads"],
            m["plan"]["whole_groups"],
            f"{m['server']['max_concurrency']:.2f} of {m['server']['longest']} tokens",
            size_text(m["server"].get("peak_memory", 0)),
        ]
        for m in report["models"]
    ]


def speed_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row per size, concurrency and model."""
    out = []
    for row in report["summary"]:
        cell = {
            f: _cell(row["figures"][f], row["ratios"].get(f), "ms" if f.endswith("_ms") else "") for f in row["figures"]
        }
        predicted = row["predicted_decode_ratio"]
        out.append(
            [
                row["side"],
                str(row["visual"]),
                str(row["concurrency"]),
                cell["output_tokens_per_s"],
                cell["decode_tokens_per_s"],
                f"{predicted:.2f}x" if predicted else "",
                cell["requests_per_s"],
                cell["ttft_ms"],
                cell["tpot_ms"],
                cell["itl_ms"],
            ]
        )
    return out


def host_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Host time per size, concurrency and model; none in reports that do not hold it."""
    figures = ("schedule_ms", "metadata_ms", "host_ms")
    return [
        [row["side"], str(row["visual"]), str(row["concurrency"])]
        + [_cell(row["figures"].get(f), row["ratios"].get(f), "ms") for f in figures]
        for row in report["summary"]
        if row["figures"].get("host_ms")
    ]


def _cell(value: Mapping[str, Any] | None, ratio: Mapping[str, Any] | None, unit: str) -> str:
    if value is None:
        return "-"
    text = f"{number_text(value['median'])} {unit}".strip()
    return text if ratio is None else f"{text}, {ratio_text(ratio)}"


def kv_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Measured and predicted KV bytes of one request."""
    base = {row["visual"]: row["bytes"] for row in report["kv"] if row["side"] == report["base"]}
    return [
        [
            r["side"],
            str(r["visual"]),
            str(r["text"]),
            size_text(r["bytes"]),
            size_text(r["predicted_bytes"]),
            f"{r['bytes'] / base[r['visual']]:.2f}x" if base.get(r["visual"]) else "-",
            str(r["fit"]),
        ]
        for r in report["kv"]
    ]


def charts(report: Mapping[str, Any], legend: bool = True) -> dict[str, Draw]:
    """Throughput against visual tokens at the largest concurrency, against concurrency at the largest picture; capacity."""
    rows, names = report["summary"], [m["name"] for m in report["models"]]
    if not rows:
        return {}
    most, largest = max(r["concurrency"] for r in rows), max(r["visual"] for r in rows)
    at_most = [r for r in rows if r["concurrency"] == most]
    at_largest = [r for r in rows if r["visual"] == largest]
    first = [r for r in rows if r["concurrency"] == min(r["concurrency"] for r in rows)]
    fit = {n: [(k["visual"], *[k["fit"]] * 3) for k in report["kv"] if k["side"] == n and k["fit"]] for n in names}
    return {
        "visual": lines(
            f"Throughput, {most} at once",
            "visual tokens per request",
            "output tokens/s",
            _series(at_most, names, "visual", "output_tokens_per_s"),
            legend,
        ),
        "concurrency": lines(
            f"Throughput, {largest} visual tokens",
            "requests at once",
            "output tokens/s",
            _series(at_largest, names, "concurrency", "output_tokens_per_s"),
            legend,
        ),
        "ttft": lines(
            f"Time to first token, {first[0]['concurrency']} at once",
            "visual tokens per request",
            "ms",
            _series(first, names, "visual", "ttft_ms"),
            legend,
        ),
        "capacity": lines("Requests that fit into the KV pool", "visual tokens per request", "requests", fit, legend),
    }


def _series(rows: Sequence[Mapping[str, Any]], names: Sequence[str], x: str, figure: str) -> dict[str, list[Any]]:
    return {
        name: [
            (r[x], f["median"], f["low"], f["high"]) for r in rows if r["side"] == name and (f := r["figures"][figure])
        ]
        for name in names
    }
