"""Numbers as reports write them, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..stats import MARGIN


def percent(x: float, signed: bool = False) -> str:
    """0.953 as 95.3 %."""
    return f"{100 * x:{'+' if signed else ''}.1f} %"


def p_text(p: float) -> str:
    """A p value with two figures."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def interval_text(difference: Mapping[str, Any]) -> str:
    """-1.2 [-2.0, +0.1], in percentage points."""
    value, low, high = (f"{100 * difference[k]:+.1f}" for k in ("difference", "low", "high"))
    return f"{value} [{low}, {high}]"


def share_text(accuracy: Mapping[str, Any]) -> str:
    """95.3 % [93.0, 97.1]."""
    return f"{percent(accuracy['share'])} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"


def number_text(value: float) -> str:
    """Three figures or whole numbers."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratio_text(ratio: Mapping[str, Any]) -> str:
    """1.23x [1.20, 1.31]."""
    return f"{ratio['median']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def size_text(count: float) -> str:
    """Bytes as KiB, MiB or GiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1024:.0f} KiB"


def listed(words: Sequence[str], most: int = 5) -> str:
    """a, b and 3 more."""
    rest = len(words) - most
    return ", ".join(words) if rest <= 0 else f"{', '.join(words[:most])} and {rest} more"


def named(facts: Mapping[str, Any]) -> str:
    """Names with their values: torch 2.9, python 3.12."""
    return ", ".join(f"{k} {v}" for k, v in facts.items())


def mood(verdict: str) -> str:
    """`bad`, `mild`, `calm` or `good`: how a page colours a verdict."""
    if verdict.startswith("loses"):
        return "mild" if "less than" in verdict else "bad"
    return "good" if verdict.startswith(("gains", "no loss larger")) else "calm"


def filled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns that are empty."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    cells = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in (head, *rows)]
    return [f"| {' | '.join(cells[0])} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in cells[1:])]


MARGIN_TEXT = f"{100 * MARGIN:g} point"
