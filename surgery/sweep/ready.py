"""The paper's own grids (Tables 2 and 4-8), adapted to the model at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...patches.errors import LostattnError
from ...serving.shape import Shape, model_shape
from .grid import Grid, read_grid

MODES = ("vision_attention", "patch_complexity", "noise")  # Table 2, in its order
BANDS = ("0.0-0.3", "0.3-0.6", "0.6-0.9", "0.2-0.8", "0.0-1.0")  # Tables 4, 5 and 8
# Tables 6 and 7: decoder layers, and how many the paper's model has. It has no windows of Qwen2.5-VL, whose decoder is as
# deep as that of LLaVA-OneVision.
WINDOWS_32 = 32, ((2, 7), (2, 13), (6, 11), (12, 17), (14, 25), (18, 23), (18, 29), (22, 31), (24, 29))
WINDOWS_28 = 28, ((0, 6), (0, 13), (7, 13), (14, 20), (14, 27), (21, 27))
READY = ("table2", "heads", "layers", "table8")
MODE = "patch_complexity"  # of the ablations of heads and layers, where the paper names none


def grids(names: Sequence[str], config: Mapping[str, Any]) -> list[Grid]:
    """Grids by their names or files, in that order.

    Raises:
        LostattnError: neither a ready-made grid nor a file, or a name twice.
    """
    results = [_grid(name, model_shape(config)) for name in names]
    if len({g.name for g in results}) < len(results):
        raise LostattnError("two --spec have the same name: give one of them another 'name:'")
    return results


def _grid(name: str, shape: Shape) -> Grid:
    if name == "table2":
        return Grid(name, {"mode": list(MODES)}, layout=name)
    if name in ("heads", "table8"):
        return Grid(name, {"mode": [MODE], "heads": list(BANDS)}, layout=name)
    if name == "layers":
        windows, notes = _windows(shape)
        return Grid(name, {"mode": [MODE], "layers": windows}, notes=notes, layout=name)
    if not name.endswith((".yaml", ".yml")):
        raise LostattnError(f"unknown sweep '{name}': choose one of {', '.join(READY)}, or give a file.yaml")
    return read_grid(name)


def _windows(shape: Shape) -> tuple[list[str], list[str]]:
    """The paper's windows of layers; of a model that is deeper or flatter the same parts of its depth."""
    depth, windows = WINDOWS_32 if shape.family.name in ("llava", "llava_next") else WINDOWS_28
    if shape.layers == depth:
        return [f"{a}-{b}" for a, b in windows], []
    made = [scaled(window, depth, shape.layers) for window in windows]
    pairs = ", ".join(f"{a}-{b} as {c}-{d}" for (a, b), (c, d) in zip(windows, made, strict=True))
    note = f"the paper's windows are of {depth} layers, the model has {shape.layers}: {pairs}"
    return list(dict.fromkeys(f"{a}-{b}" for a, b in made)), [note]


def scaled(window: tuple[int, int], depth: int, layers: int) -> tuple[int, int]:
    """The same part of another depth; at least one layer. Windows that met without overlap still do."""
    first, end = (int(x * layers / depth + 0.5) for x in (window[0], window[1] + 1))
    first = min(first, layers - 1)
    return first, max(first, end - 1)
