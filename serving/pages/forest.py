"""A forest plot as a page draws it: one lane per comparison, all on one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .words import interval_text, mood

STEPS = (0.5, 1, 2, 5, 10, 20, 25, 50)  # points between ticks
LEAST = 1.6  # points that the axis reaches to each side at least
OUTLIER = 12.0  # times the median that it reaches at most


@dataclass(frozen=True)
class Lane:
    """One comparison; places are percentages of the axis.

    Attributes:
        ends: of the interval. beyond: `<` or `>` where the value lies outside of the axis.
    """

    name: str
    number: int
    at: float
    ends: tuple[float, float]
    beyond: str
    text: str
    right: str
    mood: str


@dataclass(frozen=True)
class Group:
    """The lanes of one task."""

    title: str
    note: str
    lanes: Sequence[Lane]


@dataclass(frozen=True)
class Forest:
    """Places of ticks with their texts, of 0, and of the margin's two ends; the groups."""

    ticks: Sequence[tuple[float, str]]
    zero: float
    margin: tuple[float, float]
    groups: Sequence[Group]


def forest(groups: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]], margin: float) -> Forest:
    """Places for all comparisons.

    Args:
        groups: title, note and rows; a row has `name`, `number`, `difference` (of the three shares), `right` and `verdict`.
        margin: a loss that is called none; a share.
    """
    results = [row["difference"] for _, _, rows in groups for row in rows]
    low, high = -_reach([-d["low"] for d in results]), _reach([d["high"] for d in results])

    def place(share: float) -> float:
        return min(max(100 * (100 * share - low) / (high - low), 0.0), 100.0)

    step = next((s for s in STEPS if (high - low) / s <= 6), STEPS[-1])
    ticks = [k * step for k in range(int(low / step), int(high / step) + 1)]
    return Forest(
        [(place(t / 100), f"{t:+g}" if t else "0") for t in ticks],
        place(0),
        (place(-margin), place(margin)),
        [Group(title, note, [_lane(row, place) for row in rows]) for title, note, rows in groups],
    )


def _reach(ends: Sequence[float]) -> float:
    """How far the axis goes to one side, in points: to the furthest end, unless that would hide all others."""
    points = sorted(max(100 * end, 0.0) for end in ends)
    usual = max(points[(len(points) - 1) // 2], LEAST) if points else LEAST
    return 1.06 * max(min(points[-1] if points else 0.0, OUTLIER * usual), LEAST)


def _lane(row: Mapping[str, Any], place: Any) -> Lane:
    difference = row["difference"]
    at = place(difference["difference"])
    beyond = "<" if at == 0 else ">" if at == 100 else ""
    return Lane(
        row["name"],
        row["number"],
        at,
        (place(difference["low"]), place(difference["high"])),
        beyond,
        interval_text(difference),
        row["right"],
        mood(row["verdict"]),
    )
