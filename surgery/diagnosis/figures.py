"""The paper's pictures: RID against MixIG (Figure 2) and trajectories over layers (Figure 3)."""

from __future__ import annotations

from typing import Any

from ...serving.pages.charts import Draw, dress, need_matplotlib, short

Chart = tuple[Draw, tuple[float, float]]  # how to draw it, and its size in inches
COLOURS = {
    "attention": "#3b82d6",
    "feed_forward": "#d8504a",
    "noise_delta": "#8a9099",
    "noise_qkv": "#9a62d0",
    "noise_ffn": "#a9743b",
}
LABELS = {
    "attention": "attention",
    "feed_forward": "feed-forward",
    "noise_delta": "noise instead of the attention update",
    "noise_qkv": "noise instead of q, k, v weights",
    "noise_ffn": "noise instead of feed-forward weights",
}
ROPE, ROPE_LABEL = "#2c9c69", "\u03b5 RoPE"
MARKERS = "osD^vP*X<>"


def pyplot() -> Any:
    """matplotlib.pyplot without a display; LostattnError says how to install it."""
    need_matplotlib()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def draw_models(report: dict[str, Any]) -> Chart:
    """Figure 2: one marker per model and module, RID across, MixIG up, bars for the 95 % intervals."""

    def draw(figure: Any, ink: str, faint: str) -> None:
        axes = figure.add_subplot()
        title = "What a module adds to the residual stream, mean over layers"
        dress(
            axes,
            ink,
            faint,
            title,
            "RID: what is new against the state before (0 to 2)",
            "MixIG: change of token mixing (nats)",
        )
        shown: dict[str, Any] = {}
        for number, (name, model) in enumerate(report["models"].items()):
            marker = MARKERS[number % len(MARKERS)]
            _modules(axes, model, marker, shown)
            if len(report["models"]) > 1:
                shown[f"model {short(name)}"] = axes.plot([], [], marker, color=ink)[0]
        axes.axhline(0, color=ink, linewidth=0.6)
        _legend(figure, list(shown.values()), list(shown), ink)

    return draw, (6.0, 4.9)


def _modules(axes: Any, model: dict[str, Any], marker: str, shown: dict[str, Any]) -> None:
    """One model's markers; what the legend has to tell goes into `shown`."""
    for module, measures in model["modules"].items():
        x, y = measures["rid"], measures["mixig"]
        bars = axes.errorbar(
            x["mean"],
            y["mean"],
            xerr=_error(x),
            yerr=_error(y),
            fmt=marker,
            color=COLOURS[module],
            capsize=3,
            markersize=8,
            alpha=0.8,
        )
        shown.setdefault(LABELS[module], bars)
    if "rope" in model:
        line = axes.axvline(model["rope"]["mean"], color=ROPE, linestyle="--", linewidth=1)
        shown.setdefault(ROPE_LABEL, line)


def draw_layers(report: dict[str, Any]) -> Chart:
    """Figure 3: RID and MixIG of every layer; one column per model, bands for the 95 % intervals."""
    models = report["models"]

    def draw(figure: Any, ink: str, faint: str) -> None:
        grid = figure.subplots(2, len(models), squeeze=False, sharey="row", sharex="col")
        for column, (name, model) in enumerate(models.items()):
            for row, (measure, title) in enumerate((("rid", "RID"), ("mixig", "MixIG (nats)"))):
                axes = grid[row][column]
                dress(axes, ink, faint, "" if row else short(name), "layer" if row else "", "" if column else title)
                for module, measures in model["layers"].items():
                    _line(axes, measures[measure], COLOURS[module], LABELS[module])
                if measure == "rid" and "rope_layers" in model:
                    _line(axes, model["rope_layers"], ROPE, ROPE_LABEL, "--")
            grid[1][column].xaxis.get_major_locator().set_params(integer=True)
        handles, labels = grid[0][0].get_legend_handles_labels()
        _legend(figure, handles, labels, ink)

    return draw, (max(6.5, 3.6 * len(models)), 5.4)


def _legend(figure: Any, handles: list[Any], labels: list[str], ink: str) -> None:
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False, labelcolor=ink)


def _line(axes: Any, points: list[dict[str, Any] | None], colour: str, label: str, style: str = "-") -> None:
    at = [i for i, p in enumerate(points) if p is not None]
    kept = [p for p in points if p is not None]
    axes.plot(at, [p["mean"] for p in kept], style, color=colour, label=label, marker=".", linewidth=1.4)
    low, high = ([p[k] if p[k] is not None else p["mean"] for p in kept] for k in ("low", "high"))
    axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)


def _error(x: dict[str, Any]) -> float:
    high = x["high"]
    return 0.0 if high is None or high != high else high - x["mean"]
