"""What `lostattn plan --gpu` asks for and prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .base import print_table, tell
from .choices import GPU

TEXT, VISUAL = 128, 1024
_OPTIONS = [
    click.option("--gpu", type=GPU, help="Predict speed and memory in vLLM on this GPU, by arithmetic."),
    click.option("--tensor-parallel", type=click.IntRange(1), help="GPUs of that kind.  [default: 1]"),
    click.option(
        "--text-tokens", type=click.IntRange(1), help=f"Text of a request, answer included.  [default: {TEXT}]"
    ),
    click.option("--visual-tokens", type=click.IntRange(1), help=f"Of its one image.  [default: {VISUAL}]"),
]


def gpu_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--gpu and what belongs to it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_gpu_options(given: dict[str, Any]) -> dict[str, Any] | None:
    """These options, taken out of `given`, with their defaults; None without --gpu.

    Raises:
        LostattnError: one of the others without --gpu.
    """
    from ...patches.errors import LostattnError

    names = ("gpu", "tensor_parallel", "text_tokens", "visual_tokens")
    results = {name: given.pop(name) for name in names}
    if results["gpu"] is None:
        for name in names[1:]:
            if results[name] is not None:
                raise LostattnError(f"--{name.replace('_', '-')} belongs to --gpu: name a GPU, such as --gpu h100")
        return None
    ranks, text, visual = (results[n] or d for n, d in zip(names[1:], (1, TEXT, VISUAL), strict=True))
    return {"gpu": results["gpu"], "ranks": ranks, "text": text, "visual": visual}


def print_prediction(found: Any) -> None:
    """The table, what fits, and the assumptions."""
    on, request = found.on, found.request
    many = f"{on.ranks} x " if on.ranks > 1 else ""
    click.echo(
        f"\nPredicted for vLLM on {many}{on.gpu.name}, requests of {request.text} text and {request.visual} visual tokens "
        "(arithmetic, nothing measured):"
    )
    head = ["requests", "prefill ms", "patched", "ratio", "decode step ms", "patched", "tokens/s", "patched", "ratio"]
    print_table(head, [_cells(row) for row in found.rows])
    click.echo(f"Requests that fit into memory: {found.fit[0]:,} unpatched, {found.fit[1]:,} patched.")
    if not all(served.fits for row in found.rows for served in (row.original, row.patched)):
        click.echo("* more than fit: some wait, which the figures leave out.")
    for line in assumption_lines(on):
        click.echo(line)
    for note in found.notes:
        tell(f"note: {note}")


def _cells(row: Any) -> list[str]:
    """One row; ratios above 1 mean that the plan is faster."""
    old, new = row.original, row.patched
    speeds = [f"{s.tokens_per_s:,.0f}{'' if s.fits else '*'}" for s in (old, new)]
    return [
        str(row.requests),
        f"{old.prefill_ms:,.1f}",
        f"{new.prefill_ms:,.1f}",
        f"{row.prefill_ratio:.2f}x",
        f"{old.step_ms:.2f}",
        f"{new.step_ms:.2f}",
        *speeds,
        f"{row.decode_ratio:.2f}x",
    ]


def assumption_lines(on: Any) -> list[str]:
    """What the figures take for granted, in words."""
    gpu, a = on.gpu, on.assumed
    return [
        f"Assumed: {gpu.bandwidth / 1e12:g} TB/s, of which {a.bandwidth_share:.0%} are reached; {gpu.flops / 1e12:,.0f} "
        f"TFLOP/s bf16, of which {a.matmul_share:.0%} in matrix products and {a.attention_share:.0%} in attention "
        f"({gpu.source});",
        f"  {a.layer_kernels} kernels a layer, {a.kernel * 1e6:g} us each beside their work, {a.scattered_kernels} more where "
        f"patched heads share a KV head with others; decode steps in one CUDA graph; {a.launch * 1e6:g} us of host time a "
        f"launch in prefill, {a.prefill_launches} more in a patched layer;",
        f"  KV blocks of {a.block} tokens, {a.memory_share:.0%} of {gpu.memory / 1e9:g} GB for vLLM, "
        f"{a.reserve / 1e9:g} GB of it for activations and graphs, weights {on.all_bytes / 1e9:.1f} GB "
        f"({on.decode_bytes / 1e9:.1f} GB read in a decode step); prefill in steps of {a.chunk} tokens.",
    ]
