"""`lostattn frontier`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import json_option, print_json, print_table, tell


@click.command(short_help="Show which KV groups can go, as calibrate measured them.")
@click.argument("calibration", type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path), help="Also draw it, as a PNG file.")
@json_option
def frontier(calibration: Path, plot: Path | None, as_json: bool) -> None:
    """Show which KV groups of a model can go, as measured by `calibrate --frontier`.

    \b
    Example:
      lostattn frontier qwen.calibration.json --plot frontier.png
    """
    from ...patches.errors import LostattnError
    from ..calibration import Calibration

    result = Calibration.read(calibration).frontier
    if result is None:
        raise LostattnError(
            f"{calibration} holds no measured KV groups: make them with 'lostattn calibrate --frontier' (or --sensitivity)"
        )
    if plot is not None:
        from ..efficient.plot import plot_frontier

        plot_frontier(result, plot)
        tell(f"wrote {plot}")
    print_json(result.to_json()) if as_json else print_groups(result)


def print_groups(found: Any) -> None:
    """Every group alone, and the search if there was one."""
    from ..efficient.frontier import FRONTIER_HEAD, frontier_rows, shown

    tell(f"{found.samples} questions; " + ", ".join(f"{k} {shown(v)}" for k, v in found.settings.items()))
    click.echo("\nEvery KV group alone:")
    print_table(
        ["layer", "KV head", "answers that stay", "KL (nats)"],
        [
            [layer, group, f"{100 * h.agreement:.1f} %", f"{h.kl:.2e}"]
            for (layer, group), h in sorted(found.alone.items())
        ],
    )
    if found.steps:
        click.echo("\nMeasured frontier (every row: all groups up to it together):")
        print_table(FRONTIER_HEAD, frontier_rows(found))
