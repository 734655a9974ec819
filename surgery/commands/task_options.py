"""Options of commands that put benchmark tasks to models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ...serving.reading.forms import HELP
from .choices import ANY_TASK, DTYPE, HARNESS

OPTIONS = (
    click.option(
        "--task", type=ANY_TASK, multiple=True, required=True, help="Benchmark, see lostattn tasks; may be repeated."
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
        "--batch", type=click.IntRange(1), default=16, show_default=True, help="Items at once in transformers."
    ),
    click.option("--dtype", type=DTYPE, default="auto", show_default=True, help="Of the weights (transformers)."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ... (transformers)."),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Of the bootstrap, of the demo's questions, of harnesses that guess.",
    ),
    click.option("--harness", type=HARNESS, default="lostattn", show_default=True, help="Whose rule reads answers."),
)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--task, --data and what belongs to them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
