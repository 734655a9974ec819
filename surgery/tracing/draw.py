"""The pictures of a trace: edges of every layer over the image, the ratio per layer, every mode's map."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..diagnosis.figures import pyplot
from .graph import LayerGraph
from .maps import PriorMaps
from .trace import Trace

BOX, KEY_MAP, OTHER_MAP = "#00a35a", "YlOrRd", "Blues"
DOTS = 150  # per inch


def draw_graphs(trace: Trace, image: Image.Image, name: str, path: Path) -> None:
    """One panel per layer: the image faded, the boxes, an edge from every j to the i that attends to it."""
    plt = pyplot()
    figure, panels = _panels(plt, len(trace.layers), trace.size, beside=1.9 if trace.boxes else 0.95)
    scale = plt.Normalize(trace.threshold, max([trace.threshold * 2, *(_top(g) for g in trace.layers)]))
    centres = _centres(trace)
    for number, (panel, graph) in enumerate(zip(panels, trace.layers, strict=True)):
        _backdrop(panel, image, trace, faded=0.65)
        touching = graph.touches(trace.key)
        for some, colours in ((~touching, OTHER_MAP), (touching, KEY_MAP)):
            _edges(plt, panel, graph, some, centres, _deep(plt, colours), scale)
        panel.set_title(_panel_title(number, graph, trace), fontsize=9)
    _edge_legend(plt, figure, panels, scale, bool(trace.boxes))
    threshold = f"edge j → i where visual token i pays visual token j at least {trace.threshold:g} (mean over heads)"
    title = _title(f"Visual interaction graph of every layer of {name}", trace, threshold)
    figure.suptitle(title, fontsize=_letters(figure) + 3)
    _save(plt, figure, path)


def draw_ratios(trace: Trace, name: str, path: Path) -> None:
    """rho of every layer, beside the share of tokens that lie in the key region."""
    plt = pyplot()
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained", height_ratios=[2, 1])
    share = 100 * float(trace.key.double().mean())
    ratios = trace.ratios()
    known = [(i, 100 * r) for i, r in enumerate(ratios) if r is not None]
    upper.bar(
        [i for i, _ in known], [r for _, r in known], color="#e6550d", label="ρ: edges with an end in the key region"
    )
    for i, ratio in enumerate(ratios):
        if ratio is None:
            upper.annotate("no edges", (i, 1), rotation=90, ha="center", va="bottom", fontsize=7, color="grey")
    upper.axhline(share, color=BOX, linestyle="--", label=f"tokens that lie in the key region ({share:.1f} %)")
    upper.set_ylabel("percent")
    upper.set_ylim(0, 105)
    upper.legend(fontsize=8)
    lower.bar(range(len(ratios)), [g.edges for g in trace.layers], color="#6baed6")
    lower.set_ylabel("edges")
    lower.set_xlabel("decoder layer")
    lower.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(_title(f"Key-region degree ratio of {name}", trace, ""), fontsize=11)
    _save(plt, figure, path)


def draw_maps(trace: Trace, image: Image.Image, maps: PriorMaps, name: str, path: Path) -> None:
    """The image, then one panel per mode: the prior number of every visual token where it looks at the image."""
    plt = pyplot()
    figure, panels = _panels(plt, 1 + len(maps.weights), trace.size, colourbar=0.3)
    _backdrop(panels[0], image, trace, faded=0.0)
    panels[0].set_title("picture, evidence in green" if trace.boxes else "picture", fontsize=9)
    shown = _finest(trace.rectangles)
    for panel, (mode, weights) in zip(panels[1:], maps.weights.items(), strict=True):
        _backdrop(panel, image, trace, faded=0.5)
        heat = _heat(plt, panel, trace, weights, shown)
        figure.colorbar(heat, ax=panel, shrink=0.8, label="prior number w")
        panel.set_title(f"mode {mode}", fontsize=9)
    note = "what each SAP mode would put in place of attention; the same in every layer"
    if int(shown.sum()) < len(shown) - int(trace.rectangles[:, 0].isnan().sum()):
        note += "; tokens of the tiles (the small base picture is left out)"
    figure.suptitle(_title(f"Prior maps for {name}", trace, note), fontsize=_letters(figure) + 3)
    _save(plt, figure, path)


def _panels(
    plt: Any, count: int, size: tuple[int, int], colourbar: float = 0.0, beside: float = 0.0
) -> tuple[Any, list[Any]]:
    """A grid of panels of the picture's shape, wider than high.

    Args:
        colourbar: room right of each panel, as a share of the panel's width.
        beside: room right of all panels, in inches.
    """
    shape = min(max(size[0] / size[1], 0.4), 2.5)
    columns = min(count, max(1, round(math.sqrt(count * 1.5 / (shape + colourbar)))))
    rows = math.ceil(count / columns)
    width = max(2.3, min(3.6, 18 / columns), (8 - beside) / columns)
    height = width / (1 + colourbar) / shape + 0.35
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns + beside, height * rows + 1.6), layout="compressed", squeeze=False
    )
    flat = list(axes.flat)
    for spare in flat[count:]:
        spare.set_axis_off()
    return figure, flat[:count]


def _backdrop(panel: Any, image: Image.Image, trace: Trace, faded: float) -> None:
    from matplotlib.patches import Rectangle

    white = Image.new("RGB", image.size, "white")
    panel.imshow(Image.blend(image, white, faded), extent=(0, trace.size[0], trace.size[1], 0))
    for x, y, width, height in trace.boxes:
        panel.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=BOX, linewidth=1.8, zorder=5))
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_xlim(0, trace.size[0])
    panel.set_ylim(trace.size[1], 0)


def _edges(
    plt: Any, panel: Any, graph: LayerGraph, some: torch.Tensor, centres: torch.Tensor, colours: Any, scale: Any
) -> None:
    """Lines with a dot at the end that attends, rings for tokens that attend to themselves; strong ones on top."""
    from matplotlib.collections import LineCollection

    order = graph.weight[some].argsort()
    source, target, weight = (x[some][order] for x in (graph.source, graph.target, graph.weight))
    loops = source == target
    lines = torch.stack([centres[source], centres[target]], 1)[~loops]
    rgba = colours(scale(weight.numpy()))
    widths = (0.7 + 2.5 * weight[~loops]).tolist()
    panel.add_collection(LineCollection(list(lines.numpy()), colors=rgba[~loops.numpy()], linewidths=widths, zorder=3))
    for ends, marks in ((~loops, {"s": 9}), (loops, {"s": 30, "facecolors": "none"})):
        if bool(ends.any()):
            points, shade = centres[target[ends]], rgba[ends.numpy()]
            kind = {"edgecolors": shade} if "facecolors" in marks else {"color": shade}
            panel.scatter(points[:, 0], points[:, 1], zorder=4, **marks, **kind)


def _edge_legend(plt: Any, figure: Any, panels: list[Any], scale: Any, boxes: bool) -> None:
    """What marks mean, and a colour scale per kind of edge."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    blue, letters = _deep(plt, OTHER_MAP)(0.7), _letters(figure)
    marks: list[Any] = [
        Line2D(
            [],
            [],
            color=blue,
            marker="o",
            markevery=[1],
            markersize=4,
            label="edge; the dot is the token i that attends",
        ),
        Line2D(
            [], [], color=blue, marker="o", linestyle="", markerfacecolor="none", label="token that attends to itself"
        ),
    ]
    if boxes:
        marks.append(Patch(fill=False, edgecolor=BOX, linewidth=1.8, label="box of the evidence (key region)"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), fontsize=letters, frameon=False)
    kinds = [("edges that touch the key region", KEY_MAP)] if boxes else []
    for label, colours in [("other edges" if boxes else "edges", OTHER_MAP), *kinds]:
        bar = plt.cm.ScalarMappable(norm=scale, cmap=_deep(plt, colours))
        thin = 0.35 / figure.get_figwidth()
        drawn = figure.colorbar(bar, ax=panels, pad=0.01, aspect=45, fraction=thin)
        drawn.set_label(f"attention weight, {label}", fontsize=letters)


def _panel_title(number: int, graph: LayerGraph, trace: Trace) -> str:
    text = f"layer {number}: {graph.edges} edges" if graph.edges != 1 else f"layer {number}: 1 edge"
    ratio = graph.degree_ratio(trace.key)
    return text if not trace.boxes or ratio is None else f"{text}, ρ = {100 * ratio:.0f} %"


def _title(what: str, trace: Trace, note: str) -> str:
    question = textwrap.shorten(" ".join(trace.question.split()), 110, placeholder=" ...")
    answer = textwrap.shorten(" ".join(trace.answer.split()), 60, placeholder=" ...")
    return "\n".join([what, f"“{question}” — answer: “{answer}”", *textwrap.wrap(note, 90)])


def _heat(plt: Any, panel: Any, trace: Trace, weights: torch.Tensor, shown: torch.Tensor) -> Any:
    """Every token's rectangle in the colour of its number."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    wide, high = trace.size
    places = trace.rectangles[shown] * torch.tensor([wide, high, wide, high])
    rectangles = [Rectangle((x0, y0), x1 - x0, y1 - y0) for x0, y0, x1, y1 in places.tolist()]
    heat = PatchCollection(rectangles, cmap="viridis", alpha=0.6, linewidth=0, zorder=2)
    numbers = weights[shown].numpy()
    heat.set_array(numbers)
    if numbers.max() - numbers.min() < 1e-12:  # one colour, not noise
        heat.set_clim(numbers.min() - 0.5, numbers.max() + 0.5)
    panel.add_collection(heat)
    return heat


def _finest(rectangles: torch.Tensor) -> torch.Tensor:
    """Tokens to be painted: those of the tiles where a picture is also shown whole, never line breaks. Bool (n,)."""
    area = (rectangles[:, 2] - rectangles[:, 0]) * (rectangles[:, 3] - rectangles[:, 1])
    breaks = area.isnan().nonzero()[:, 0]
    shown = ~area.isnan()
    tiled = len(breaks) > 1 or (len(breaks) == 1 and float(area.nan_to_num(0).sum()) > 1.5)
    if tiled:
        base = int((~area.isnan() & (area - area[0]).abs().lt(1e-9)).cumprod(0).sum())
        shown[:base] = False
    return shown


def _centres(trace: Trace) -> torch.Tensor:
    """(n, 2) pixels, inside the picture; NaN, and therefore not drawn, for line breaks."""
    wide, high = trace.size
    centres = (trace.rectangles[:, :2] + trace.rectangles[:, 2:]) / 2 * torch.tensor([wide, high])
    return centres


def _top(graph: LayerGraph) -> float:
    return float(graph.weight.max()) if graph.edges else 0.0


def _deep(plt: Any, name: str) -> Any:
    """A colour map without its palest third, which would vanish on a faded picture."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name + " deep", plt.get_cmap(name)([0.4 + 0.06 * i for i in range(11)]))


def _letters(figure: Any) -> float:
    """Size of small print that stays readable when a wide figure is shrunk to a page."""
    return max(8.0, min(13.0, 0.75 * figure.get_figwidth()))


def _save(plt: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=DOTS, bbox_inches="tight", pad_inches=0.15)  # compressed layouts leave blank margins
    plt.close(figure)


def draw_comparison(summary: dict[str, Any], name: str, path: Path) -> None:
    """Correct against incorrect answers: mean rho with its interval, and per layer."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained", width_ratios=[1, 2])
    groups: Sequence[tuple[str, str]] = (("correct", "#2ca02c"), ("incorrect", "#d62728"))
    for place, (group, colour) in enumerate(groups):
        result = summary[group]
        if result["rho"] is None:
            left.annotate(f"no {group}\nanswers", (place, 1), ha="center", color="grey")
            continue
        mean, low, high = (result["rho"][k] for k in ("mean", "low", "high"))
        error = None if low is None else [[100 * (mean - low)], [100 * (high - mean)]]
        left.bar(place, 100 * mean, yerr=error, capsize=6, color=colour, width=0.6)
        left.annotate(f"{100 * mean:.1f} %", (place + 0.05, 100 * mean), xytext=(8, 4), textcoords="offset points")
        share, first = 100 * result["key_share_of_tokens"], place == 0
        marks = {"linestyle": "--", "zorder": 5, "label": "tokens in the key region" if first else None}
        left.hlines(share, place - 0.42, place + 0.42, color="#08519c", **marks)
        paper = 100 * summary["paper"][group]
        left.scatter(place, paper, marker="D", color="black", zorder=5, label="ρ in the paper" if first else None)
        layers = [(i, x) for i, x in enumerate(result["layers"]) if x is not None]
        xs, means = [i for i, _ in layers], [100 * x["mean"] for _, x in layers]
        right.plot(xs, means, marker="o", color=colour, label=f"{group} (n = {result['n']})")
        if all(x["low"] is not None for _, x in layers):
            lows, highs = ([100 * x[k] for _, x in layers] for k in ("low", "high"))
            right.fill_between(xs, lows, highs, color=colour, alpha=0.15)
    left.set_xticks([0, 1], [f"{g}\n(n = {summary[g]['n']})" for g, _ in groups])
    left.set_ylabel("mean ρ in percent, 95 % interval")
    left.set_ylim(bottom=0)
    left.legend(fontsize=8)
    right.set_ylim(bottom=0)
    right.set_xlabel("decoder layer")
    right.set_ylabel("ρ in percent, mean over samples, 95 % band")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(fontsize=8)
    figure.suptitle(
        f"Share of visual interactions that touch the evidence: {name}\nρ = edges with an end in the key region / all edges",
        fontsize=11,
    )
    _save(plt, figure, path)
