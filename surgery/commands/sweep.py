"""`lostattn sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import json_option, print_json, print_table
from .checks import need_files, need_sources
from .choices import GRID
from .task_options import read_asked, task_options


@click.command(short_help="Evaluate many plans on one loaded model, writing none.")
@click.argument("base")
@click.option(
    "--spec",
    "specs",
    multiple=True,
    required=True,
    type=GRID,
    help="A grid of the paper, or a YAML file; may be repeated.",
)
@task_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for answers and report.")
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="Measured heads.  [default: measured on built-in pictures]"
)
@click.option("--devices", metavar="D,D,...", help="One process on each: cuda:0,cuda:1, or cpu,cpu.")
@click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="One model per GPU (or CPU) of a Ray cluster: its address, auto (the running one) or local (a new one).",
)
@click.option("--worker", is_flag=True, hidden=True)
@json_option
def sweep(
    base: str,
    specs: tuple[str, ...],
    out: Path,
    calibration: Path | None,
    devices: str | None,
    ray: str | None,
    worker: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Evaluate many patches of the plain model BASE without writing any: every plan is put into one loaded model.

    Every answer is kept: an interrupted run goes on where it stopped. --devices starts a process on each GPU of this machine,
    --ray works on those of a cluster; there the model, and pictures that the data names by path, must lie at the same place on
    every machine, and --out only here. Started several times with the same --out (on machines that share the disk), the
    processes share the plans among them.

    \b
    Examples:
      lostattn sweep lostattn-demo/base --spec table2 --spec layers --spec heads --task digits --limit 500 --out sweep
      lostattn sweep ./qwen --spec table2 --task pope --data ./POPE --device cuda --out table2
      lostattn sweep ./qwen --spec table2 --task pope --data ./POPE --devices cuda:0,cuda:1 --out table2
      lostattn sweep ./qwen --spec layers --task pope --data /data/POPE --ray --out layers
      lostattn sweep ./qwen --spec my-grid.yaml --task vmcbench --data ./VMCBench --split test --out grid
    """
    ctx = click.get_current_context()
    _refuse_together(ctx)
    need_sources([base])
    need_files(
        *(("--spec", spec) for spec in specs if spec.endswith((".yaml", ".yml"))), ("--calibration", calibration)
    )
    asked = read_asked(given)
    from ..evaluation.evaluate import EvalSettings  # these need torch, which the mistakes above do not
    from ..sweep.tables import grid_table

    settings = EvalSettings(
        batch=given["batch"], dtype=given["dtype"], device=given["device"], seed=given["seed"], harness=given["harness"]
    )
    report = _swept(ctx, (base, specs, asked, out, settings, calibration), devices, ray, worker)
    if report is None:
        return
    if as_json:
        print_json(report)
        return
    for grid in report["grids"]:
        click.echo(f"{grid['name']}:")
        print_table(*grid_table(report, grid["name"], marked=False))
        click.echo()
    click.echo(f"The report is the page {out / 'sweep.html'}; Markdown, JSON and charts lie beside it.")


def _swept(
    ctx: click.Context, wanted: tuple[Any, ...], devices: str | None, ray: str | None, worker: bool
) -> dict[str, Any] | None:
    """The report of one process, of several, or of a cluster; None of a worker, which writes none."""
    from ..sweep.sweep import prepare, run_sweep, take_plans

    if worker:
        from ..sweep.devices import end_with_parent

        end_with_parent()
        take_plans(prepare(*wanted))
        return None
    if ray is not None:
        from ..sweep.over_ray import sweep_over

        return sweep_over(ray, *wanted)
    if devices is None:
        return run_sweep(*wanted)
    from ..sweep.devices import WorkerDied, sweep_on

    try:
        return sweep_on(devices, _same_command(ctx), *wanted)
    except WorkerDied as error:
        raise click.ClickException(str(error)) from error


def _refuse_together(ctx: click.Context) -> None:
    """At most one way of saying where plans are answered."""
    from ...patches.errors import LostattnError

    default = click.core.ParameterSource.DEFAULT
    said = [f"--{n}" for n in ("device", "devices", "ray") if ctx.get_parameter_source(n) is not default]
    if len(said) > 1:
        raise LostattnError(f"{' and '.join(said)} all say where plans are answered: give one of them")


def _same_command(ctx: click.Context) -> list[str]:
    """This command's words for one worker, without what says where and what to print."""
    words = [str(ctx.info_name)]
    for parameter in ctx.command.params:
        value = ctx.params[str(parameter.name)]
        if not isinstance(parameter, click.Option) or parameter.name in (
            "device",
            "devices",
            "ray",
            "worker",
            "as_json",
        ):
            continue
        if parameter.is_flag:
            words += [parameter.opts[0]] if value else []
        elif value is not None:
            words += [w for one in (value if parameter.multiple else [value]) for w in (parameter.opts[0], str(one))]
    return [*words, "--", ctx.params["base"]]
