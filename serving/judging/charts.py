"""The charts of benchmark and comparison, drawn with matplotlib: PNG files for Markdown, SVG for the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError

# blue, orange, green, violet, brown, cyan: told apart in colour blindness, in light and dark
PALETTE = ("#3b82d6", "#e07b22", "#2c9c69", "#9a62d0", "#a9743b", "#1ba3b5")
INK, FAINT = "#767a80", "#b8bcc2"  # on white and on near-black alike
INK_IN_SVG, FAINT_IN_SVG = "#010203", "#040506"  # replaced by the page's own colours
Draw = Callable[[Any, str, str], None]


def need_matplotlib() -> None:
    """Raise LostattnError if charts cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise LostattnError("the report's charts need matplotlib: pip install 'lostattn[report]'")


def colour(number: int) -> str:
    """Of the model with this number; the original is 0."""
    return PALETTE[number % len(PALETTE)]


def png(path: Path, draw: Draw, size: tuple[float, float]) -> None:
    """A chart as a PNG file on white; `draw(figure, ink, faint)` draws it, `size` is in inches."""
    figure = _figure(size)
    draw(figure, "#33373c", FAINT)
    figure.savefig(path, dpi=160, facecolor="white", bbox_inches="tight", metadata={"Software": None})


def svg(draw: Draw, size: tuple[float, float], label: str) -> str:
    """The same as an SVG element for a page: text stays text, ink is the page's own colour."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}):
        figure = _figure(size)
        draw(figure, INK_IN_SVG, FAINT_IN_SVG)
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sid="[\w.]+_\d+"', "", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--font)", text)
    for sentinel, name in ((INK_IN_SVG, "--ink"), (FAINT_IN_SVG, "--faint")):
        text = text.replace(sentinel, f"var({name})")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def dress(axes: Any, ink: str, faint: str, title: str, x: str, y: str) -> None:
    """Quiet axes: no box, a faint grid, the title on the left."""
    axes.set_title(title, loc="left", fontsize=10.5, color=ink, fontweight="bold")
    axes.set_xlabel(x, fontsize=9, color=ink)
    axes.set_ylabel(y, fontsize=9, color=ink)
    axes.tick_params(colors=ink, labelsize=8.5, length=0)
    axes.grid(True, color=faint, linewidth=0.6, alpha=0.45)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(faint)


def lines(
    title: str,
    x: str,
    y: str,
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    level: float | None = None,
) -> Draw:
    """A chart of (x, median, low, high) per model, x on a logarithmic scale with the measured values as ticks."""

    def draw(figure: Any, ink: str, faint: str) -> None:
        axes = figure.add_subplot()
        dress(axes, ink, faint, title, x, y)
        ticks = sorted({point[0] for points in series.values() for point in points})
        for number, (name, points) in enumerate(series.items()):
            if not points:
                continue
            xs, mid, low, high = ([p[i] for p in sorted(points)] for i in range(4))
            axes.fill_between(xs, low, high, color=colour(number), alpha=0.18, linewidth=0)
            axes.plot(  # the first ones are thicker, so that those under others are seen
                xs, mid, color=colour(number), label=name, marker="o", markersize=max(9 - 2 * number, 4),
                linewidth=max(4 - number, 2),
            )  # fmt: skip
            if len(xs) == 1:
                axes.vlines(xs, low, high, color=colour(number), linewidth=2, alpha=0.6)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        if len(ticks) == 1:
            axes.set_xlim(ticks[0] / 2, ticks[0] * 2)
        top = axes.get_ylim()[1]
        axes.set_ylim(0, top * 1.05)
        if level is not None:
            axes.axhline(level, color=ink, linewidth=1, linestyle=(0, (4, 3)))
        axes.legend(fontsize=8.5, frameon=False, labelcolor=ink, loc="best")

    return draw


def intervals(title: str, x: str, rows: Sequence[tuple[str, float, float, float]]) -> Draw:
    """One line per model: (name, value, low, high) around a line at 0."""

    def draw(figure: Any, ink: str, faint: str) -> None:
        axes = figure.add_subplot()
        dress(axes, ink, faint, title, x, "")
        axes.axvline(0, color=ink, linewidth=1)
        for place, (_, value, low, high) in enumerate(rows):
            shade = colour(place + 1)
            axes.plot([low, high], [place, place], color=shade, linewidth=4, solid_capstyle="round", alpha=0.45)
            axes.plot([value], [place], color=shade, marker="o", markersize=8)
            axes.annotate(
                f"{value:+.1f}",
                (value, place),
                xytext=(6, 6),
                textcoords="offset points",
                ha="left",
                fontsize=9,
                color=ink,
            )
        axes.set_yticks(range(len(rows)), [r[0] for r in rows])
        axes.set_ylim(len(rows) - 0.4, -0.7)
        reach = max([abs(v) for r in rows for v in r[1:]] + [2.0]) * 1.15
        axes.set_xlim(-reach, reach)
        axes.grid(False, axis="y")

    return draw


def bars(title: str, x: str, rows: Sequence[tuple[str, int, float, str]]) -> Draw:
    """Horizontal bars of percentages: (label, number of the model, value, text behind the bar)."""

    def draw(figure: Any, ink: str, faint: str) -> None:
        axes = figure.add_subplot()
        dress(axes, ink, faint, title, x, "")
        widest = max([r[2] for r in rows] + [1e-9])
        for place, (_, number, value, text) in enumerate(rows):
            axes.barh(place, value, color=colour(number), height=0.62, alpha=0.9)
            axes.annotate(
                text, (value, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9, color=ink
            )
        axes.set_yticks(range(len(rows)), [r[0] for r in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_xlim(0, max(widest * 1.28, 20))
        axes.grid(False, axis="y")

    return draw
