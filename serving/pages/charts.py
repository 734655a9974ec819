"""Charts drawn with matplotlib: PNG files for Markdown, SVG for pages."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError

# blue, orange, green, violet, brown, cyan: told apart in colour blindness, in light and dark
PALETTE = ("#3b82d6", "#e07b22", "#2c9c69", "#9a62d0", "#a9743b", "#1ba3b5")
INK, FAINT = "#33373c", "#b8bcc2"  # of PNG files, which are white
INK_IN_SVG, FAINT_IN_SVG = "#010203", "#040506"  # replaced by the page's own colours
LONGEST = 30  # characters of a name in a chart
Draw = Callable[[Any, str, str], None]


def need_matplotlib() -> None:
    """Raise LostattnError if charts cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise LostattnError("the report's charts need matplotlib: pip install 'lostattn[report]'")


def colour(number: int) -> str:
    """Of the model with this number; the original is 0."""
    return PALETTE[number % len(PALETTE)]


def second_round(number: int) -> bool:
    """Whether another model has this colour already; markers are hollow then, and lines dashed."""
    return number // len(PALETTE) % 2 == 1


def short(name: str) -> str:
    """A name that leaves room in a chart; matplotlib leaves those out of legends that begin with an underscore."""
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2 - 1]}...{name[2 - LONGEST // 2 :]}"


def png(path: Path, draw: Draw, size: tuple[float, float]) -> None:
    """A chart as a PNG file on white; `draw(figure, ink, faint)` draws it, `size` is in inches."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a name is a $
        figure = _figure(size)
        draw(figure, INK, FAINT)
        figure.savefig(path, dpi=160, facecolor="white", bbox_inches="tight", metadata={"Software": None})


def svg(draw: Draw, size: tuple[float, float], label: str) -> str:
    """The same as an SVG element for a page: text stays text, ink is the page's own colour."""
    import matplotlib

    own: Any = {"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif", "text.parse_math": False}
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context(own):
        figure = _figure(size)
        draw(figure, INK_IN_SVG, FAINT_IN_SVG)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata=nothing)
    text = buffer.getvalue()
    head, body = text[text.index("<svg") :].split(">", 1)
    head = re.sub(r'\s(?:width|height|version|xmlns(?::\w+)?)="[^"]*"', "", head)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\sid="[\w.]+_\d+"', "", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--font)", body)
    for sentinel, name in ((INK_IN_SVG, "--ink"), (FAINT_IN_SVG, "--faint")):
        body = body.replace(sentinel, f"var({name})")
    return f'<svg role="img" aria-label="{escape(label)}"{head.removeprefix("<svg")}>{body}'


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
    title: str, x: str, y: str, series: Mapping[str, Sequence[tuple[float, float, float, float]]], legend: bool = True
) -> Draw:
    """A chart of (x, median, low, high) per model, x on a logarithmic scale with the measured values as ticks.

    Args:
        legend: beneath the chart; a page says once which colour is whose.
    """

    def draw(figure: Any, ink: str, faint: str) -> None:
        axes = figure.add_subplot()
        dress(axes, ink, faint, title, x, y)
        ticks = sorted({point[0] for points in series.values() for point in points})
        for number, (name, points) in enumerate(series.items()):
            if points:
                _line(axes, number, name, points)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        if len(ticks) == 1:
            axes.set_xlim(ticks[0] / 2, ticks[0] * 2)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
        if legend and ticks:
            figure.legend(fontsize=8, frameon=False, labelcolor=ink, loc="outside lower center", ncols=2)

    return draw


def _line(axes: Any, number: int, name: str, points: Sequence[tuple[float, float, float, float]]) -> None:
    """One model's; the first ones are thicker, so that those under others are seen."""
    xs, mid, low, high = ([p[i] for p in sorted(points)] for i in range(4))
    shade, hollow = colour(number), second_round(number)
    axes.fill_between(xs, low, high, color=shade, alpha=0.14, linewidth=0)
    axes.plot(
        xs,
        mid,
        color=shade,
        label=short(name),
        marker="o",
        markersize=max(9 - 2 * number, 5),
        linewidth=max(4 - number, 1.8),
        linestyle="--" if hollow else "-",
        markerfacecolor="none" if hollow else shade,
    )
    if len(xs) == 1:
        axes.vlines(xs, low, high, color=shade, linewidth=2, alpha=0.6)
