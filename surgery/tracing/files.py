"""What `lostattn trace` writes: JSON for programs, CSV for tables, pictures for people."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from PIL import Image

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors, write_json
from .compare import Sample
from .draw import draw_graphs, draw_maps, draw_ratios
from .maps import PriorMaps
from .trace import Trace


def make_folder(out: Path, force: bool) -> None:
    """The output folder; one with an earlier trace is used again only by force."""
    if (out / "trace.json").exists() and not force:
        raise LostattnError(f"{out} holds a trace already: choose another --out, or add --force")
    with disk_errors(f"cannot make the folder {out}"):
        out.mkdir(parents=True, exist_ok=True)


def write_trace(
    out: Path, trace: Trace, maps: PriorMaps, image: Image.Image, name: str, report: dict[str, Any]
) -> None:
    """All files of one traced question; `trace.json` comes last."""
    with disk_errors(f"cannot write to {out}"):
        write_edges(out / "edges.csv", trace)
        _write_tokens(out / "tokens.csv", trace, maps)
        draw_graphs(trace, image, name, out / "graph.png")
        draw_maps(trace, image, maps, name, out / "priors.png")
        if trace.boxes:
            draw_ratios(trace, name, out / "ratio.png")
    write_json(out / "trace.json", report)


def write_edges(path: Path, trace: Trace) -> None:
    """All edges j -> i, numbers of visual tokens from 0."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["layer", "j", "i", "weight", "touches_key"])
        for layer, graph in enumerate(trace.layers):
            columns = (graph.source, graph.target, graph.weight, graph.touches(trace.key))
            for j, i, weight, key in zip(*(c.tolist() for c in columns), strict=True):
                rows.writerow([layer, j, i, f"{weight:.6g}", int(key)])


def _write_tokens(path: Path, trace: Trace, maps: PriorMaps) -> None:
    """Every visual token: its rectangle in pixels (empty for line breaks), whether it is key, its prior numbers."""
    wide, high = trace.size
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["token", "left", "top", "right", "bottom", "key", *maps.weights])
        for token, place in enumerate(trace.rectangles.tolist()):
            scaled = [v * s for v, s in zip(place, (wide, high, wide, high), strict=True)]
            cells = ["" if v != v else f"{v:.3f}" for v in scaled]
            numbers = [f"{w[token]:.6g}" for w in maps.weights.values()]
            rows.writerow([token, *cells, int(trace.key[token]), *numbers])


class SampleTable:
    """`samples.csv`, one line per traced row, on disk as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(f"cannot write {path}"), path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([f.name for f in fields(Sample)])

    def add(self, sample: Sample, _: Trace) -> None:
        """Append one line; lists are joined by spaces."""
        cells = [_cell(v) for v in asdict(sample).values()]
        with disk_errors(f"cannot write {self.path}"), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(cells)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join("-" if v is None else f"{v:g}" for v in value)
    return "" if value is None else value
