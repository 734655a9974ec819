"""The paper's pictures: RID against MixIG (Figure 2) and trajectories over layers (Figure 3)."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError

COLOURS = {
    "attention": "#1f77b4",
    "feed_forward": "#d62728",
    "noise_delta": "#7f7f7f",
    "noise_qkv": "#9467bd",
    "noise_ffn": "#8c564b",
}
LABELS = {
    "attention": "attention",
    "feed_forward": "feed-forward",
    "noise_delta": "noise instead of the attention update",
    "noise_qkv": "noise instead of q, k, v weights",
    "noise_ffn": "noise instead of feed-forward weights",
}
ROPE = "#2ca02c"
MARKERS = "osD^vP*X<>"


def need_matplotlib() -> None:
    """LostattnError says how to install it where it is missing; nothing is imported."""
    if find_spec("matplotlib") is None:
        raise LostattnError("pictures need matplotlib: pip install 'lostattn[report]'")


def pyplot() -> Any:
    """matplotlib.pyplot without a display; LostattnError says how to install it."""
    need_matplotlib()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def draw_models(report: dict[str, Any], path: Path) -> None:
    """Figure 2: one marker per model and module, RID across, MixIG up, bars for the 95 % intervals."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    shown: dict[str, Any] = {}
    for (name, model), marker in zip(report["models"].items(), MARKERS * 9, strict=False):
        for module, measures in model["modules"].items():
            x, y = measures["rid"], measures["mixig"]
            bars = axes.errorbar(
                x["mean"], y["mean"], xerr=_error(x), yerr=_error(y), fmt=marker, color=COLOURS[module], capsize=3,
                markersize=8, alpha=0.8,
            )  # fmt: skip
            shown.setdefault(LABELS[module], bars)
        if "rope" in model:
            line = axes.axvline(model["rope"]["mean"], color=ROPE, linestyle="--", linewidth=1)
            shown.setdefault(r"$\epsilon_{RoPE}$", line)
        if len(report["models"]) > 1:
            shown[f"model {name}"] = axes.plot([], [], marker, color="black")[0]
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel("RID: what is new against the state before (0 to 2)")
    axes.set_ylabel("MixIG: change of token mixing (nats)")
    axes.set_title("What a module adds to the residual stream, mean over layers")
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_layers(report: dict[str, Any], path: Path) -> None:
    """Figure 3: RID and MixIG of every layer; one column per model, bands for the 95 % intervals."""
    plt = pyplot()
    models = report["models"]
    columns = len(models)
    figure, grid = plt.subplots(
        2,
        columns,
        figsize=(max(6.5, 4.2 * columns), 6),
        layout="constrained",
        squeeze=False,
        sharey="row",
        sharex="col",
    )
    for column, (name, model) in enumerate(models.items()):
        for row, (measure, title) in enumerate((("rid", "RID"), ("mixig", "MixIG (nats)"))):
            axes = grid[row][column]
            for module, measures in model["layers"].items():
                _line(axes, measures[measure], COLOURS[module], LABELS[module])
            if measure == "rid" and "rope_layers" in model:
                _line(axes, model["rope_layers"], ROPE, r"$\epsilon_{RoPE}$", "--")
            axes.set_ylabel(title if column == 0 else "")
            axes.grid(alpha=0.3)
        grid[0][column].set_title(name)
        grid[1][column].set_xlabel("layer")
        grid[1][column].xaxis.get_major_locator().set_params(integer=True)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _line(axes: Any, points: list[dict[str, Any] | None], colour: str, label: str, style: str = "-") -> None:
    at = [i for i, p in enumerate(points) if p is not None]
    kept = [p for p in points if p is not None]
    axes.plot(at, [p["mean"] for p in kept], style, color=colour, label=label, marker=".", linewidth=1.4)
    low, high = ([p[k] if p[k] is not None else p["mean"] for p in kept] for k in ("low", "high"))
    axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)


def _error(x: dict[str, Any]) -> float:
    return 0.0 if x["high"] is None or math.isnan(x["high"]) else x["high"] - x["mean"]
