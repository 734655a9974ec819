"""Options of commands that put benchmark tasks to models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ...serving.reading.forms import HELP
from .base import UserMistake, print_json, print_table
from .choices import ANY_TASK, DTYPE, HARNESS

if TYPE_CHECKING:
    from ..evaluation.tasks import Asked

WHAT = (
    click.option(
        "--task",
        type=ANY_TASK,
        multiple=True,
        help="Benchmark; may be repeated.  [default: digits for the demo's questions, else questions]",
    ),
    click.option(
        "--data",
        multiple=True,
        metavar="[TASK=]DATA",
        help=f"{HELP} Or a folder with data of every task.  [default: the task's Hub id; the demo's questions for digits]",
    ),
    click.option("--split", default="", help="Split of the data instead of the task's own."),
    click.option("--limit", type=click.IntRange(1), help="At most so many items of each task."),
    click.option("--prompt", default="", help="One of the task's prompts instead of its first."),
    click.option("--reasoning", is_flag=True, help="Append the paper's prompt for reasoning models."),
    click.option(
        "--max-tokens", type=click.IntRange(1), help="Longest answer.  [default: 1024 as in the paper; digits: 16]"
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Of the bootstrap, of the demo's questions, of harnesses that guess.",
    ),
    click.option("--harness", type=HARNESS, default="lostattn", show_default=True, help="Whose rule reads answers."),
)

HOW = (
    click.option(
        "--batch", type=click.IntRange(1), default=16, show_default=True, help="Items at once in transformers."
    ),
    click.option("--dtype", type=DTYPE, default="auto", show_default=True, help="Of the weights (transformers)."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ... (transformers)."),
)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--task, --data and what belongs to them, and how transformers answers."""
    return _with(command, (*WHAT, *HOW))


def question_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--task, --data and what belongs to them."""
    return _with(command, WHAT)


power_option = click.option(
    "--power",
    is_flag=True,
    help="Print which difference so many questions would show, and how many 1 point needs.",
)


def need_comparison(power: bool, models: int) -> None:
    """UserMistake where there is nothing whose power could be told."""
    if power and models < 2:
        raise UserMistake("--power is about differences between models: name two or more, or leave it out")


def show_results(report: dict[str, Any], power: bool, as_json: bool) -> bool:
    """Print what a report found, as JSON or as tables; whether it was tables."""
    from ...serving.evaluation.report import HEAD, result_rows
    from ...serving.evaluation.versus import POWER_HEAD, power_rows

    rows = power_rows(report["results"]) if power else []
    if as_json:
        print_json(report | ({"power": [dict(zip(POWER_HEAD, row, strict=True)) for row in rows]} if power else {}))
        return False
    print_table(HEAD, result_rows(report["results"]))
    if power:
        click.echo()
        print_table(POWER_HEAD, rows)
    return True


def read_asked(given: Mapping[str, Any]) -> list[Asked]:
    """The tasks that these options name, with their items."""
    from ..evaluation.tasks import read_tasks

    return read_tasks(
        given["task"],
        given["data"],
        split=given["split"],
        limit=given["limit"],
        max_tokens=given["max_tokens"],
        prompt=given["prompt"],
        reasoning=given["reasoning"],
        seed=given["seed"],
    )


def _with(command: Callable[..., Any], options: Sequence[Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
