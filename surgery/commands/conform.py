"""`lostattn conform`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from .base import json_option, print_json, print_table, tell
from .checks import need_data, need_models
from .data_option import data_option


@click.command(short_help="Check that vLLM computes what transformers computes.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@data_option("image and question", default=None, show_default="built-in pictures of several shapes")
@click.option("--limit", type=click.IntRange(1), help="At most so many rows of --data.")
@click.option("--videos", is_flag=True, help="Built-in videos in place of pictures.")
@click.option("--max-tokens", type=click.IntRange(1), default=24, show_default=True, help="Tokens compared per prompt.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of both engines; float32 leaves rounding out.",
)
@click.option("--device", default="cpu", show_default=True, help="Of transformers: cpu, cuda, cuda:1, ...")
@json_option
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM_OPTION...]")
def conform(
    folder: Path,
    data: str | None,
    limit: int | None,
    videos: bool,
    max_tokens: int,
    dtype: str,
    device: str,
    as_json: bool,
    vllm_options: tuple[str, ...],
) -> None:
    """Check that vLLM computes for the model in DIR (patched or plain) what transformers computes.

    vLLM answers greedily; transformers is given the same prompt tokens and, step by step, the same answer, and must choose
    every token itself, with equal log-probabilities. Exit code 1 if not.

    \b
    Examples:
      lostattn conform ./qwen2.5-vl-sap
      lostattn conform ./qwen2.5-vl-sap --videos
      lostattn conform ./qwen2.5-vl-sap --data questions.jsonl --limit 50 --dtype bfloat16
    """
    need_models(folder)
    need_data(data)
    if videos and data is not None:
        raise click.UsageError("--videos are built in: leave out --data, or --videos")
    from ..conform import TOLERANCE, builtin_cases, data_cases, tells_apart, video_cases
    from ..conform import conform as compare

    pictures = builtin_cases() if data is None else data_cases(data, limit)
    cases = video_cases(tells_apart(folder)) if videos else pictures
    result = compare(folder, cases, max_tokens, dtype, device, vllm_options)
    ok = all(r.ok for r in result)
    if as_json:
        rows = [asdict(r) for r in result]
        print_json({"ok": ok, "dtype": dtype, "tolerance": TOLERANCE[dtype], "cases": rows})
    else:
        head = ["prompt", "tokens", "visual", "answer", "same tokens", "logprob difference", "verdict"]
        rows_ = [
            [r.name, r.prompt, r.visual, r.tokens, r.equal, f"{r.difference:.1e}", "ok" if r.ok else "DIFFERS"]
            for r in result
        ]
        print_table(head, rows_)
        click.echo(
            f"{sum(r.ok for r in result)} of {len(result)} prompts agree ({dtype}, log-probabilities within {TOLERANCE[dtype]:g})"
        )
    if not ok:
        tell("vLLM and transformers do not agree on this model: do not serve it")
        raise SystemExit(1)
