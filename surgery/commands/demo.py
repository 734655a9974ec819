"""`lostattn demo`."""

from __future__ import annotations

from pathlib import Path

import click

from .base import json_option, print_json, print_table

SHOWN = ("prior", "layers", "heads", "right", "difference (95 %)", "verdict")  # the report has all columns


@click.command(short_help="Patch a small real model in every mode; nothing is downloaded.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("lostattn-demo"),
    show_default=True,
    help="Folder for models and report.",
)
@click.option("--questions", type=click.IntRange(10), default=100, show_default=True, help="How many questions.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the questions.")
@click.option("--force", is_flag=True, help="Replace the folder of an earlier demo.")
@click.option(
    "--serve/--no-serve", default=True, show_default=True, help="End with a comparison in vLLM if there is one."
)
@json_option
def demo(out: Path, questions: int, seed: int, force: bool, serve: bool, as_json: bool) -> None:
    """Patch a small real model in every mode, layer by layer and at equal KV saved, and compare with the original.

    The model (Qwen2.5-VL architecture, trained on handwritten digits) comes with lostattn; nothing is downloaded. Where vLLM is
    installed, the original and the model with whole layers patched are then served and compared.

    \b
    Examples:
      lostattn demo
      lostattn demo --questions 2000 --out results --json
    """
    from ..demo.folder import check_request

    check_request(out, seed, force)
    from ..demo.demo import run_demo
    from ..demo.report import layer_table, plan_table, table  # these need torch, which the mistakes above do not

    report = run_demo(out, questions, seed, force, serve)
    if as_json:
        print_json(report)
        return
    for table_of, shown in (
        (table(report), SHOWN),
        (layer_table(report["layers"]), ("patched", "right", "difference (95 %)", "verdict")),
        (plan_table(report["plans"]), ("visual KV saved", "plan", "right", "difference to the original (95 %)")),
    ):
        head, *rows = table_of
        at = [head.index(name) for name in shown]
        print_table(shown, [[row[i] for i in at] for row in rows])
        click.echo()
    click.echo(report["headline"])
    patched, base = out / "patch_complexity", out / "base"
    if report.get("served"):
        click.echo(f"\nOriginal and patched in vLLM: {out / 'comparison' / 'compare.html'}")
    click.echo(f"\nThe report lies in {out / 'report.html'}, pictures with answers in {out / 'gallery.png'}. Next:")
    click.echo(f"  lostattn show {patched}")
    click.echo(f'  lostattn ask {patched} --compare {base} --image {out / "picture.png"} "Is there a 7?"')
    click.echo(f"  lostattn patch --mode patch_complexity --layers 5-7 --heads all {base} my-patched-model")
