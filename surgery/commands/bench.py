"""`lostattn bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .base import Group, json_option, print_json, print_table, tell
from .checks import need_models
from .choices import BENCH_PLAN
from .data_option import data_option
from .serving_options import BehindDashes, budget_bytes, load_options, positive_numbers, vllm_options


@click.group(cls=Group, short_help="Measure what SAP saves on this machine.")
def bench() -> None:
    """Measure what SAP saves on this machine."""


@bench.command(short_help="One attention layer: SAP against torch's SDPA.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="cpu: the closed form in plain torch; cuda: the Triton kernels over a paged cache.",
)
@click.option(
    "--visual-tokens",
    help="Sizes of the image.  [default: 256,512,1024,2048,4096,8192; cuda: 256,1024,4096,16384,32768]",
)
@click.option(
    "--threads", type=click.IntRange(1), help="1 counts CPU time, more count wall time; cpu only.  [default: 1]"
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    help="Time for each comparison, at least 5 pairs; cpu only.  [default: 1.5]",
)
@click.option("--requests", help="Requests at once; cuda only.  [default: 1,8,32,128]")
@click.option("--text-tokens", type=click.IntRange(2), help="Text of a request; cuda only.  [default: 512]")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: float32; cuda: bfloat16]"
)
@json_option
def attention(device: str, visual_tokens: str | None, dtype: str | None, as_json: bool, **given: Any) -> None:
    """One attention layer of Qwen2.5-VL-7B's shape: SAP against torch's SDPA, side by side.

    Ratios below 1 mean that SAP is faster. Decode is the steady state, with the image's summary known. On a GPU it needs torch
    and Triton, no vLLM, and takes a few minutes.

    \b
    Examples:
      lostattn bench attention --visual-tokens 1024,4096
      lostattn bench attention --device cuda
    """
    from ...patches.errors import LostattnError

    foreign = ("threads", "seconds") if device == "cuda" else ("requests", "text_tokens")
    for name in foreign:
        if given[name] is not None:
            raise LostattnError(f"--{name.replace('_', '-')} means nothing with --device {device}: leave it out")
    wrong = "float32" if device == "cuda" else "float16"
    if dtype == wrong:
        raise LostattnError(f"--device {device} does not measure {wrong}: give --dtype bfloat16")
    usual = "256,1024,4096,16384,32768" if device == "cuda" else "256,512,1024,2048,4096,8192"
    sizes = positive_numbers(visual_tokens or usual, "visual tokens")
    if device == "cuda":
        requests = positive_numbers(given["requests"] or "1,8,32,128", "requests")
        _attention_on_gpu(sizes, requests, given["text_tokens"] or 512, dtype or "bfloat16", as_json)
    else:
        _attention_on_cpu(sizes, given["threads"] or 1, given["seconds"] or 1.5, dtype or "float32", as_json)


def _attention_on_cpu(sizes: Sequence[int], threads: int, seconds: float, dtype: str, as_json: bool) -> None:
    import torch

    from ..bench_attention import bench_attention

    result = bench_attention(sizes, threads, seconds, getattr(torch, dtype))
    if as_json:
        print_json(result)
        return
    rows = [
        [
            r["phase"],
            r["visual"],
            r["plan"],
            r["path"],
            f"{r['sdpa_ms']:.2f}",
            f"{r['sap_ms']:.2f}",
            f"{r['ratio']:.2f}x",
            f"{r['ratio_low']:.2f}-{r['ratio_high']:.2f}",
            r["pairs"],
        ]
        for r in result["rows"]  # type: ignore[attr-defined]
    ]
    print_table(["phase", "visual", "plan", "path", "SDPA ms", "SAP ms", "ratio", "middle half", "pairs"], rows)
    if result["growth"]:
        click.echo(f"all-heads prefill grows {result['growth']:.2f}x from 4096 to 8192 visual tokens")
    tell(", ".join(f"{k}: {v}" for k, v in result["environment"].items()))  # type: ignore[attr-defined]


def _attention_on_gpu(sizes: Sequence[int], requests: Sequence[int], text: int, dtype: str, as_json: bool) -> None:
    from ...serving.benchmark.attention_table import HEAD, measure, table_rows

    result = measure(sizes, requests, text, dtype, "cuda")
    if as_json:
        print_json(result)
        return
    print_table(HEAD, table_rows(result))
    tell(", ".join(f"{k}: {v}" for k, v in result["environment"].items()))


@bench.command(short_help="Patch a sparse checkpoint of many gigabytes.")
@click.option(
    "--gigabytes",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Size of the sparse checkpoint.",
)
@json_option
def patch(gigabytes: float, as_json: bool) -> None:
    """Patch a sparse checkpoint of many gigabytes: seconds, and memory above the interpreter's own.

    \b
    Example:
      lostattn bench patch --gigabytes 10
    """
    from ..bench_patch import bench_patch

    result = bench_patch(gigabytes)
    if as_json:
        print_json(result)
    else:
        print_table(["quantity", "value"], [(k, f"{v:.2f}" if isinstance(v, float) else v) for k, v in result.items()])


@bench.command(short_help="RID of one layer: one factorisation against many.")
@click.option("--shapes", default="1024x3584,4096x3584", show_default=True, help="Tokens x features.")
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="1 counts CPU time, more count wall time."
)
@json_option
def measures(shapes: str, threads: int, as_json: bool) -> None:
    """RID of one layer's three states: one factorisation a state against one SVD a measure. Takes minutes.

    \b
    Example:
      lostattn bench measures --shapes 1024x3584
    """
    from ...patches.errors import LostattnError

    try:
        pairs = [(int(a), int(b)) for a, b in (part.split("x") for part in shapes.split(","))]
    except ValueError as error:
        raise LostattnError(
            f"cannot read shapes '{shapes}': write TOKENSxFEATURES, such as 1024x3584,4096x3584"
        ) from error
    from ..bench_measures import bench_measures

    result = bench_measures(pairs, threads=threads)
    if as_json:
        print_json(result)
        return
    rows = [list(row.values()) for row in result["rows"]]  # type: ignore[attr-defined]
    print_table(list(result["rows"][0]), [[f"{c:.3g}" if isinstance(c, float) else c for c in r] for r in rows])  # type: ignore[index]


@bench.command(short_help="Preset efficient against other choices of KV groups.")
@click.argument("src")
@click.option(
    "--calibration", type=click.Path(path_type=Path), required=True, help="File from 'lostattn calibrate --frontier'."
)
@data_option("image, question and answer", default="digits", show_default=True)
@click.option("--questions", type=click.IntRange(2), default=1000, show_default=True, help="At most so many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the demo's questions.")
@click.option("--groups", help="Numbers of KV groups to patch, such as 6,9.  [default: what keeps 99 % of the answers]")
@click.option("--random", "random_plans", type=click.IntRange(0), default=5, show_default=True, help="Random choices.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer.  [default: 1024; digits: 16]")
@click.option("--task", help="How answers are read.  [default: digits for the demo's questions, else questions]")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the answers.")
@json_option
def plans(
    src: str,
    calibration: Path,
    data: str,
    questions: int,
    seed: int,
    groups: str | None,
    random_plans: int,
    max_tokens: int | None,
    task: str | None,
    dtype: str,
    device: str,
    out: Path,
    as_json: bool,
) -> None:
    """Preset efficient against the paper's band, first, last and random KV groups, at equal KV saved.

    Where the calibration holds a fit of the groups that preset efficient lets go (calibrate --fit), also with fitted scores.
    SRC is the plain model. The questions should be other ones than those of the calibration. An interrupted run goes on where
    it stopped.

    \b
    Example:
      lostattn bench plans ./qwen2.5-vl --calibration qwen.calibration.json --data test.jsonl --out plans
    """
    from ..calibration import Calibration
    from ..checkpoint.source import resolve_source
    from ..evaluation.tasks import read_tasks
    from ..ranges import parse_numbers

    (asked,) = read_tasks([task] if task else [], [data], limit=questions, max_tokens=max_tokens, seed=seed)
    counts = None if groups is None else parse_numbers(groups, "groups")
    source, measured = resolve_source(src), Calibration.read(calibration)
    from ..bench_plans import bench_plans  # needs torch, which the mistakes above do not
    from ..evaluation.evaluate import EvalSettings

    settings = EvalSettings(batch=32, dtype=dtype, device=device, seed=seed)
    result = bench_plans(source, measured, asked, out, counts, random_plans, settings)
    if as_json:
        print_json(result)
        return
    click.echo(f"original: {100 * result['original_accuracy']:.2f} % of {result['questions']} questions")
    print_table(
        [
            "KV groups",
            "visual KV saved",
            "plan",
            "accuracy",
            "same answers",
            "against original (95 %)",
            "efficient minus this (95 %)",
        ],
        [
            [
                r["kv_groups"],
                f"{100 * r['visual_kv_saved']:.1f} %",
                r["plan"],
                f"{100 * r['accuracy']:.2f} %",
                f"{100 * r['agreement']:.2f} %",
                _interval(r["versus_original"]),
                _interval(r["efficient_minus_this"]),
            ]
            for r in result["rows"]
        ],
    )


def _interval(found: dict[str, Any] | None) -> str:
    """A paired difference in points with its interval."""
    if found is None:
        return ""
    return f"{100 * found['difference']:+.2f} ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"


@bench.command(cls=BehindDashes, short_help="Original and patched models in vLLM under the same load.")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("patched", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--plan",
    "plans",
    multiple=True,
    type=BENCH_PLAN,
    help="Patch BASE with it below --out and measure that too; any number.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the report.")
@click.option(
    "--visual-tokens", default="256,1024,4096", show_default=True, help="Sizes of the one picture of a request."
)
@click.option("--videos", is_flag=True, help="A video of four frames in place of the picture.")
@click.option("--concurrency", default="1,8,32", show_default=True, help="Requests at once.")
@click.option("--text-tokens", type=click.IntRange(1), default=96, show_default=True, help="Random text of a request.")
@click.option("--output-tokens", type=click.IntRange(2), default=64, show_default=True, help="Length of every answer.")
@click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="How often each load is measured."
)
@click.option("--requests", type=click.IntRange(1), help="Per load.  [default: twice the concurrency, at least 4]")
@click.option(
    "--warmups",
    type=click.IntRange(0),
    help="Requests in front of each load that do not count.  [default: as many as run at once]",
)
@click.option(
    "--load-format",
    type=click.Choice(["auto", "dummy"]),
    default="auto",
    show_default=True,
    help="dummy: random weights, for figures about speed without the real ones.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of pictures and texts.")
@load_options
@json_option
def serve(
    base: Path, patched: tuple[Path, ...], plans: tuple[str, ...], out: Path, as_json: bool, **given: Any
) -> None:
    """Original and patched models in vLLM under the same load: throughput, latency, KV cache, memory.

    The load is vLLM's own serving benchmark with random pictures or videos. The models take turns, and every figure of a patched
    model stands with its ratio to BASE, host time of decode steps (scheduling, attention metadata) as well. An interrupted run
    goes on where it stopped. What stands behind -- goes to vLLM's servers.

    \b
    Examples:
      lostattn bench serve ./qwen ./qwen-sap --out bench
      lostattn bench serve ./qwen --plan all --plan but-first --plan every-second --plan frontier.yaml --out bench
      lostattn bench serve ./qwen ./qwen-sap --visual-tokens 4096 --concurrency 8 --out bench -- --dtype bfloat16
      lostattn bench serve ./qwen ./qwen-sap --videos --visual-tokens 8192 --concurrency 1,8 --out bench
    """
    sizes = positive_numbers(given["visual_tokens"], "visual tokens")
    concurrency = positive_numbers(given["concurrency"], "concurrency")
    need_models(base, *patched)
    if not patched and not plans:
        raise click.UsageError("give at least one patched folder, or a --plan", click.get_current_context())
    from ...serving.benchmark.bench import bench_serve
    from ...serving.benchmark.report import HEAD, speed_rows
    from ...serving.benchmark.settings import BenchSettings

    options = vllm_options()
    settings = BenchSettings(
        visual_tokens=sizes,
        concurrency=concurrency,
        text_tokens=given["text_tokens"],
        output_tokens=given["output_tokens"],
        repeats=given["repeats"],
        requests=given["requests"],
        warmups=given["warmups"],
        kv_budget=budget_bytes(given["kv_budget"]),
        together=given["together"],
        seed=given["seed"],
        videos=given["videos"],
        options=(*options, "--load-format", "dummy") if given["load_format"] == "dummy" else options,
    )
    if plans:
        from ..bench_sides import plan_folders

        patched = (*patched, *plan_folders(base, plans, out / "plans"))
    report = bench_serve(base, patched, out, settings)
    if as_json:
        print_json(report)
        return
    print_table(HEAD, speed_rows(report))
    click.echo(f"\nThe report lies in {out / 'bench.md'}, with charts beside it.")
