"""The frontier as a chart: what is saved against what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors
from ...serving.pages.charts import colour, dress, need_matplotlib, png
from .frontier import Frontier

FLOOR = 1e-9  # of the logarithmic KL axis, nats


def plot_frontier(frontier: Frontier, path: Path) -> None:
    """Draw agreement and KL over the share of the visual KV cache that is saved, as a PNG file.

    Raises:
        LostattnError: no search in the frontier, no matplotlib, or a disk that refuses.
    """
    if not frontier.steps:
        raise LostattnError("only single groups were measured: make a frontier with 'lostattn calibrate --frontier'")
    need_matplotlib()
    counts = range(1, len(frontier.steps) + 1)
    saved = [100 * frontier.saved(i) for i in counts]
    stays = [100 * s.harm.agreement for s in frontier.steps]
    kl = [max(s.harm.kl, FLOOR) for s in frontier.steps]

    def draw(figure: Any, ink: str, faint: str) -> None:
        left, right = figure.subplots(1, 2)
        dress(left, ink, faint, "Answers that stay", "visual KV cache saved (%)", "%")
        left.plot(saved, stays, color=colour(0), marker="o", linewidth=2)
        left.set_ylim(min(*stays, 90.0) - 3, 102)
        dress(right, ink, faint, "KL of the next token", "visual KV cache saved (%)", "nats")
        right.plot(saved, kl, color=colour(1), marker="o", linewidth=2)
        right.set_yscale("log")

    with disk_errors(f"cannot write {path}"):
        png(path, draw, (9.0, 3.4))
