"""`lostattn sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import json_option, print_json, print_table, say
from .task_options import task_options


@click.command()
@click.argument("base")
@click.option(
    "--spec",
    "specs",
    multiple=True,
    required=True,
    help="table2, heads, layers, table8 or a YAML file; may be repeated.",
)
@task_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for answers and report.")
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="Measured heads.  [default: measured on built-in pictures]"
)
@json_option
def sweep(base: str, specs: tuple[str, ...], out: Path, calibration: Path | None, as_json: bool, **given: Any) -> None:
    """Evaluate many patches of the plain model BASE without writing any: every plan is put into one loaded model.

    Every answer is kept: an interrupted run goes on where it stopped. Started several times with the same --out (one on each
    GPU, on machines that share the disk), the processes share the plans among them.

    \b
    Examples:
      lostattn sweep demo/base --spec table2 --spec layers --spec heads --task digits --limit 500 --out sweep
      lostattn sweep ./qwen --spec table2 --task pope --data ./POPE --device cuda --out table2
      lostattn sweep ./qwen --spec my-grid.yaml --task vmcbench --data ./VMCBench --split test --out grid
    """
    from ..evaluation.run import EvalSettings
    from ..evaluation.tasks import read_tasks
    from ..sweep.run import run_sweep
    from ..sweep.tables import grid_table

    asked = read_tasks(
        given["task"], given["data"], split=given["split"], limit=given["limit"], max_tokens=given["max_tokens"],
        prompt=given["prompt"], reasoning=given["reasoning"], seed=given["seed"],
    )  # fmt: skip
    settings = EvalSettings(
        batch=given["batch"], dtype=given["dtype"], device=given["device"], seed=given["seed"], harness=given["harness"]
    )
    report = run_sweep(base, specs, asked, out, settings, calibration, say)
    if as_json:
        print_json(report)
        return
    for grid in report["grids"]:
        click.echo(f"{grid['name']}:")
        print_table(*grid_table(report, grid["name"], marked=False))
        click.echo()
    click.echo(f"The report is the page {out / 'sweep.html'}; Markdown, JSON and charts lie beside it.")
