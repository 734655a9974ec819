"""`lostattn bench`."""

from __future__ import annotations

import click

from .base import json_option, print_json, print_table, say


@click.group()
def bench() -> None:
    """Measure what SAP saves on this machine."""


@bench.command()
@click.option("--visual-tokens", default="256,512,1024,2048,4096,8192", show_default=True, help="Sizes of the image.")
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="1 counts CPU time, more count wall time."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.5,
    show_default=True,
    help="Time for each comparison, at least 5 pairs.",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@json_option
def attention(visual_tokens: str, threads: int, seconds: float, dtype: str, as_json: bool) -> None:
    """One attention layer of Qwen2.5-VL-7B's shape: SAP against torch's SDPA, side by side.

    Ratios below 1 mean that SAP is faster. Decode is the steady state, with the image's summary known.

    \b
    Example:
      lostattn bench attention --visual-tokens 1024,4096
    """
    import torch

    from ...patches.errors import LostattnError
    from ..bench_attention import bench_attention
    from ..ranges import parse_numbers

    sizes = parse_numbers(visual_tokens, "visual tokens")
    if sizes[0] < 1:
        raise LostattnError("an image has at least one visual token: leave 0 out of --visual-tokens")
    found = bench_attention(sizes, threads, seconds, getattr(torch, dtype), say)
    if as_json:
        print_json(found)
        return
    rows = [
        [r["phase"], r["visual"], r["plan"], r["path"], f"{r['sdpa_ms']:.2f}", f"{r['sap_ms']:.2f}",
         f"{r['ratio']:.2f}x", f"{r['ratio_low']:.2f}-{r['ratio_high']:.2f}", r["pairs"]]
        for r in found["rows"]  # type: ignore[attr-defined]
    ]  # fmt: skip
    print_table(["phase", "visual", "plan", "path", "SDPA ms", "SAP ms", "ratio", "middle half", "pairs"], rows)
    if found["growth"]:
        click.echo(f"all-heads prefill grows {found['growth']:.2f}x from 4096 to 8192 visual tokens")
    say(", ".join(f"{k}: {v}" for k, v in found["environment"].items()))  # type: ignore[attr-defined]


@bench.command()
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

    found = bench_patch(gigabytes)
    if as_json:
        print_json(found)
    else:
        print_table(["quantity", "value"], [(k, f"{v:.2f}" if isinstance(v, float) else v) for k, v in found.items()])


@bench.command()
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
    from ..bench_measures import bench_measures

    try:
        pairs = [(int(a), int(b)) for a, b in (part.split("x") for part in shapes.split(","))]
    except ValueError as error:
        raise LostattnError(
            f"cannot read shapes '{shapes}': write TOKENSxFEATURES, such as 1024x3584,4096x3584"
        ) from error
    found = bench_measures(pairs, threads=threads, progress=say)
    if as_json:
        print_json(found)
        return
    rows = [list(row.values()) for row in found["rows"]]  # type: ignore[attr-defined]
    print_table(list(found["rows"][0]), [[f"{c:.3g}" if isinstance(c, float) else c for c in r] for r in rows])  # type: ignore[index]
