"""Tables that fit the terminal: cells are wrapped between words, never cut."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import click

GAP = 2  # columns between two cells
PIPED = 80  # columns where nobody tells how many there are


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Results as an aligned table, on stdout: coloured on a terminal, plain text elsewhere."""
    tty = sys.stdout.isatty()
    width = shutil.get_terminal_size((PIPED, 24)).columns if tty else PIPED
    click.echo(table_text(head, rows, width, tty), color=tty or None)


def table_text(head: Sequence[str], rows: Sequence[Sequence[object]], width: int, colours: bool = False) -> str:
    """The table in `width` columns.

    Where the longest words do not stand beside each other: turned round, with a column per row, or a block of lines per row.
    """
    from rich.console import Console

    console = Console(width=width, force_terminal=colours, no_color=not colours, highlight=False, soft_wrap=False)
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = column_widths(cells, width - GAP * (len(cells[0]) - 1))
    if widths is None:
        turned = [list(column) for column in zip(*cells, strict=True)]
        widths = column_widths(turned, width - GAP * (len(turned[0]) - 1))
        cells = turned if widths else cells
    with console.capture() as capture:
        if widths is None:
            _blocks(console, cells, width)
        else:
            console.print(_table(cells, widths))
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def column_widths(cells: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths that leave words whole and wrap the widest columns first; None if the words alone need more room."""
    wanted = [max(max(map(len, c.split("\n"))) for c in column) for column in zip(*cells, strict=True)]
    least = [max(max(map(len, c.split()), default=0) for c in column) for column in zip(*cells, strict=True)]
    if sum(least) > room:
        return None
    cap = max(wanted, default=0)
    while sum(result := [max(low, min(most, cap)) for low, most in zip(least, wanted, strict=True)]) > room:
        cap -= 1
    for i in sorted(range(len(result)), key=lambda i: wanted[i] - result[i]):  # what the last step left over
        more = min(wanted[i] - result[i], room - sum(result))
        result[i] += more
    return result


def _table(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
    for i, width in enumerate(widths):
        table.add_column(width=width, overflow="fold", style="cyan" if i == 0 else "")
    table.add_row(*(Text(cell, style="bold") for cell in cells[0]))
    table.add_row(*(Text("-" * width, style="dim") for width in widths))
    for row in cells[1:]:
        table.add_row(*map(Text, row))
    return table


def _blocks(console: object, cells: Sequence[Sequence[str]], width: int) -> None:
    """`name  value` lines, an empty line between two rows."""
    head, *rows = cells
    label = min(max(map(len, head)), max(width // 3, 8))
    for number, row in enumerate(rows):
        if number:
            console.print()  # type: ignore[attr-defined]
        pairs = [[name, cell] for name, cell in zip(head, row, strict=True)]
        console.print(_pairs(pairs, label, width - label - GAP))  # type: ignore[attr-defined]


def _pairs(pairs: Sequence[Sequence[str]], label: int, rest: int) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
    table.add_column(width=label, overflow="fold", style="bold")
    table.add_column(width=rest, overflow="fold")
    for name, cell in pairs:
        table.add_row(Text(name), Text(cell))
    return table
