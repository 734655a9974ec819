"""`lostattn compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import json_option, print_json, print_table, say
from .checks import need_data, need_models
from .data_option import data_option
from .serving_options import BehindDashes, budget_bytes, load_options, positive_numbers, vllm_options


@click.command(cls=BehindDashes, short_help="Put the same questions to models in vLLM: answers, speed, memory.")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("patched", nargs=-1, required=True, type=click.Path(path_type=Path))
@data_option("image, question, answer, and perhaps options", required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the report.")
@click.option("--limit", type=click.IntRange(1), help="Only so many rows.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Questions at once.")
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Longest answer.")
@click.option("--no-bench", is_flag=True, help="Questions only, no measurement of speed and memory.")
@click.option(
    "--bench-visual-tokens",
    default="",
    help="Sizes of the picture in the measurement.  [default: those of 256,1024,4096 that the model takes]",
)
@click.option("--bench-concurrency", default="1,8", show_default=True, help="Requests at once in the measurement.")
@click.option("--bench-repeats", type=click.IntRange(1), default=3, show_default=True, help="How often it measures.")
@load_options
@json_option
def compare(base: Path, patched: tuple[Path, ...], data: str, out: Path, as_json: bool, **given: Any) -> None:
    """Ask original and patched models the same questions in vLLM: accuracy, speed and memory in one report.

    An interrupted run goes on where it stopped. What stands behind -- goes to vLLM's servers.

    \b
    Examples:
      lostattn compare ./qwen ./qwen-sap --data questions.jsonl --out comparison
      lostattn compare ./qwen ./qwen-sap ./qwen-noise --data ./dataset --limit 500 --no-bench --out comparison
    """
    need_models(base, *patched)
    need_data(data)
    from ...serving.judging.compare import CompareSettings, compare
    from ...serving.judging.compare_report import HEAD, accuracy_rows, headline
    from ...serving.judging.settings import BenchSettings
    from ..data import find_place, read_examples, refuse_ranking

    place = find_place(data)
    refuse_ranking(place)
    bench = BenchSettings(
        visual_tokens=positive_numbers(given["bench_visual_tokens"], "visual tokens") if given["bench_visual_tokens"] else (),
        concurrency=positive_numbers(given["bench_concurrency"], "concurrency"), repeats=given["bench_repeats"],
        output_tokens=32, kv_budget=budget_bytes(given["kv_budget"]), together=given["together"], options=vllm_options(),
    )  # fmt: skip
    settings = CompareSettings(
        concurrency=given["concurrency"], max_tokens=given["max_tokens"], data=place.name, server=bench,
        bench=None if given["no_bench"] else bench,
    )  # fmt: skip
    report = compare(base, patched, read_examples(place, given["limit"]), out, settings, say)
    if as_json:
        print_json(report)
        return
    print_table(HEAD, accuracy_rows(report))
    for entry in headline(report):
        if "throughput" in entry:
            click.echo(
                f"{entry['name']}: throughput {entry['throughput']}, KV cache of a request {entry['kv']} ({entry['where']})"
            )
    click.echo(f"\nThe report is the page {out / 'compare.html'}; the same as Markdown and JSON lies beside it.")
