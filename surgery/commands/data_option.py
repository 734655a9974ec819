"""`--data` of all commands: one grammar, said in the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ...serving.reading.forms import HELP


def data_option(fields: str = "", **more: Any) -> Callable[..., Any]:
    """`--data DATA` with the common help; `fields` says what each row needs."""
    return click.option("--data", metavar="DATA", help=HELP + (f" Rows: {fields}." if fields else ""), **more)
