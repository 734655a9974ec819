"""`lostattn compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import UserMistake, json_option
from .checks import need_models
from .serving_options import BehindDashes, budget_bytes, load_options, positive_numbers, vllm_options
from .task_options import power_option, question_options, read_asked, show_results


@click.command(cls=BehindDashes, short_help="Put the same questions to models in vLLM: answers, speed, memory.")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("patched", nargs=-1, required=True, type=click.Path(path_type=Path))
@question_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the report.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Questions at once.")
@click.option("--no-bench", is_flag=True, help="Questions only, no measurement of speed and memory.")
@click.option(
    "--bench-visual-tokens",
    default="",
    help="Sizes of the picture in the measurement.  [default: those of 256,1024,4096 that the model takes]",
)
@click.option("--bench-concurrency", default="1,8", show_default=True, help="Requests at once in the measurement.")
@click.option("--bench-repeats", type=click.IntRange(1), default=3, show_default=True, help="How often it measures.")
@load_options
@power_option
@json_option
def compare(base: Path, patched: tuple[Path, ...], out: Path, as_json: bool, **given: Any) -> None:
    """Ask original and patched models the same questions in vLLM: accuracy, speed and memory in one report.

    An interrupted run goes on where it stopped. What stands behind -- goes to vLLM's servers.

    \b
    Examples:
      lostattn compare ./qwen ./qwen-sap --data questions.jsonl --out comparison
      lostattn compare ./qwen ./qwen-sap ./qwen-noise --data ./dataset --limit 500 --no-bench --out comparison
    """
    _refuse_unused(given["no_bench"])
    need_models(base, *patched)
    asked = read_asked(given)
    from ...serving.benchmark.report import lead
    from ...serving.benchmark.settings import BenchSettings
    from ..evaluation.compare import CompareSettings, compare

    bench = BenchSettings(
        visual_tokens=positive_numbers(given["bench_visual_tokens"], "visual tokens")
        if given["bench_visual_tokens"]
        else (),
        concurrency=positive_numbers(given["bench_concurrency"], "concurrency"),
        repeats=given["bench_repeats"],
        output_tokens=32,
        kv_budget=budget_bytes(given["kv_budget"]),
        together=given["together"],
        options=vllm_options(),
    )
    settings = CompareSettings(
        concurrency=given["concurrency"],
        server=bench,
        bench=None if given["no_bench"] else bench,
        seed=given["seed"],
        harness=given["harness"],
    )
    report = compare(base, patched, asked, out, settings)
    if not show_results(report, given["power"], as_json):
        return
    if report["bench"]:
        click.echo(lead(report["bench"]))
    click.echo(f"\nThe report is the page {out / 'compare.html'}; the same as Markdown and JSON lies beside it.")


def _refuse_unused(no_bench: bool) -> None:
    """No option is accepted and ignored."""
    context = click.get_current_context()
    for name in ("bench_visual_tokens", "bench_concurrency", "bench_repeats") if no_bench else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UserMistake(f"--{name.replace('_', '-')} changes nothing with --no-bench: leave one of them out")
