"""Which rectangle of the original picture every visual token shows, for every way that processors fit pictures.

Rectangles are (left, top, right, bottom) in fractions of the original picture, float64; tokens over padding reach below 0 or
above 1, and tokens that show no pixels (line breaks) are NaN.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.llava_next.modeling_llava_next import select_best_resolution

from .errors import LostattnError
from .family import Arguments, get_family
from .tiles import counts

Size = tuple[int, int]  # (width, height)
Rectangle = tuple[float, float, float, float]
WHOLE: Rectangle = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Fit:
    """How a processor fits a picture into the one square of a vision tower (LLaVA-1.5), in this order.

    Attributes:
        pad: centred on a square as large as the longer side.
        shortest: the shorter side is resized to this many pixels.
        stretch: resized to this (width, height), whatever its shape; wins over `shortest`.
        crop: this (width, height) is cut out of the centre, padded if the picture is smaller.
    """

    pad: bool = False
    shortest: int | None = None
    stretch: Size | None = None
    crop: Size | None = None

    def frame(self, size: Size) -> Rectangle:
        """The rectangle that the whole processed picture shows of an original of this (width, height)."""
        ends = [self._axis(size, axis) for axis in (0, 1)]
        return ends[0][0], ends[1][0], ends[0][1], ends[1][1]

    def _axis(self, size: Size, axis: int) -> tuple[float, float]:
        canvas = (max(size), max(size)) if self.pad else size
        start = -((canvas[axis] - size[axis]) // 2)
        resized = self._resized(canvas)
        scale = canvas[axis] / resized[axis]
        low, high = 0, resized[axis]
        if self.crop is not None:
            missing = max(self.crop[axis] - resized[axis], 0)
            low = -(missing // 2) + int((resized[axis] + missing - self.crop[axis]) / 2)
            high = low + self.crop[axis]
        return (start + low * scale) / size[axis], (start + high * scale) / size[axis]

    def _resized(self, canvas: Size) -> Size:
        if self.stretch is not None:
            return self.stretch
        if self.shortest is None:
            return canvas
        long = int(self.shortest * max(canvas) / min(canvas))
        return (self.shortest, long) if canvas[0] <= canvas[1] else (long, self.shortest)


def token_rectangles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Any = None) -> list[torch.Tensor]:
    """What every visual token of every picture shows, one (n, 4) tensor per picture in the decoder's order of tokens.

    Args:
        inner: the model without head, plain or patched.
        arguments: what the image encoder gets (image_grid_thw, image_sizes, ...; `pixel_values` where tiles are counted).
        sizes: (width, height) of the original pictures.
        fit: how the one square or the tiles were made (`Fit`, or what the family's `fit` reads); None: as published, for
            LLaVA-1.5 the shorter side resized to the square, then cropped.

    Raises:
        LostattnError: sizes that contradict the arguments.
    """
    if min((side for size in sizes for side in size), default=1) < 1:
        raise LostattnError("the size of a picture is (width, height) in pixels, both at least 1")
    return get_family(inner.config.model_type).rectangles(inner, arguments, sizes, fit)


def merged_grid(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Fit | None) -> list[torch.Tensor]:
    """Pictures stretched over a grid of patches, m x m of them one token (Qwen); of videos one grid after the other."""
    merge = inner.config.vision_config.spatial_merge_size
    grids = [(int(t), int(h) // merge, int(w) // merge) for t, h, w in arguments["image_grid_thw"].tolist()]
    return [grid_rectangles(rows, columns).repeat(steps, 1) for steps, rows, columns in grids]


def one_square(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Fit | None) -> list[torch.Tensor]:
    """Every picture in one square, one token per patch (LLaVA-1.5)."""
    vision = inner.config.vision_config
    fit = fit or Fit(shortest=vision.image_size, crop=(vision.image_size, vision.image_size))
    return [_square(vision, fit.frame(size)) for size in sizes]


def grid_rectangles(rows: int, columns: int, frame: Rectangle = WHOLE, covered: float = 1.0) -> torch.Tensor:
    """Equal cells, row by row, over a frame whose right and lower end the grid may leave out.

    Args:
        covered: share of the frame's width and height that the grid covers.

    Returns:
        (rows * columns, 4).
    """
    y, x = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    wide, high = (frame[2] - frame[0]) * covered / columns, (frame[3] - frame[1]) * covered / rows
    left, top = frame[0] + x.flatten() * wide, frame[1] + y.flatten() * high
    return torch.stack([left, top, left + wide, top + high], 1)


def _square(vision: Any, frame: Rectangle) -> torch.Tensor:
    """The patches of one square picture; a tower ignores pixels behind its last whole patch."""
    n = vision.image_size // vision.patch_size
    return grid_rectangles(n, n, frame, n * vision.patch_size / vision.image_size)


def base_and_tiles(inner: Any, arguments: Arguments, sizes: Sequence[Size], fit: Fit | None) -> list[torch.Tensor]:
    """Base picture, tiles and line breaks, put in order by the model's own rearrangement of patch numbers."""
    stated = [(int(w), int(h)) for h, w in torch.as_tensor(arguments["image_sizes"]).tolist()]
    if stated != [tuple(size) for size in sizes]:
        raise LostattnError(
            f"the processor saw pictures of (width, height) {stated} but the sizes given are {[tuple(s) for s in sizes]}"
        )
    vision, points = inner.config.vision_config, inner.config.image_grid_pinpoints
    rectangles, n = [], vision.image_size // vision.patch_size
    for image, (size, pictures) in enumerate(zip(stated, counts(inner, arguments), strict=True)):
        height, width = select_best_resolution((size[1], size[0]), points)
        numbers = _packed_numbers(inner, arguments, image, pictures, width // vision.image_size)
        # several pictures in one prompt: each is padded to a square and shown once
        base = _square(vision, Fit(pad=True).frame(size) if pictures == 1 else WHOLE)
        tiles = _Tiles(_tile_frame(size, (width, height)), (width, height), vision.image_size, vision.patch_size)
        rectangles.append(torch.stack([_rectangle(x, n, base, tiles) for x in numbers.tolist()]))
    return rectangles


def _packed_numbers(inner: Any, arguments: Arguments, image: int, pictures: int, across: int) -> torch.Tensor:
    """(is a tile, row, column) of every token's patch, (n, 3); a model that shrinks large pictures mixes neighbours."""
    n = inner.config.vision_config.image_size // inner.config.vision_config.patch_size
    rows, columns = torch.meshgrid(torch.arange(n).double(), torch.arange(n).double(), indexing="ij")
    parts = [torch.stack([torch.zeros(n, n).double(), rows, columns], -1)]
    for tile in range(pictures - 1):
        parts.append(torch.stack([torch.ones_like(rows), rows + tile // across * n, columns + tile % across * n], -1))
    known = inspect.signature(inner.pack_image_features).parameters
    ratio = arguments.get("vision_aspect_ratio") or getattr(inner.config, "vision_aspect_ratio", None)
    options = {"vision_feature_select_strategy": "full", "vision_aspect_ratio": ratio}
    packed, _ = inner.pack_image_features(
        [torch.stack(parts).flatten(1, 2)],
        [torch.as_tensor(arguments["image_sizes"])[image].tolist()],
        image_newline=torch.full((3,), torch.nan, dtype=torch.float64),
        **{name: value for name, value in options.items() if name in known},
    )
    return packed[0]


def _tile_frame(size: Size, canvas: Size) -> Rectangle:
    """The rectangle that all tiles together show: the picture keeps its shape and is centred on the canvas."""
    by_width, by_height = canvas[0] / size[0], canvas[1] / size[1]
    wide, high = canvas
    if by_width < by_height:
        high = min(math.ceil(size[1] * by_width), canvas[1])
    else:
        wide = min(math.ceil(size[0] * by_height), canvas[0])
    left, top = (canvas[0] - wide) // 2, (canvas[1] - high) // 2
    return -left / wide, -top / high, (canvas[0] - left) / wide, (canvas[1] - top) / high


@dataclass(frozen=True)
class _Tiles:
    """Where the patches of all tiles lie: on a canvas of (width, height) pixels that shows `frame` of the original."""

    frame: Rectangle
    canvas: Size
    side: int
    patch: int

    def rectangle(self, row: float, column: float) -> Rectangle:
        """The patch of that number, or all patches that a number between two of them mixes."""
        (left, right), (top, bottom) = self._ends(column, 0), self._ends(row, 1)
        return left, top, right, bottom

    def _ends(self, number: float, axis: int) -> tuple[float, float]:
        edge, n = 1e-6, self.side // self.patch  # numbers of unmixed patches are whole
        first, last = math.floor(number + edge), math.ceil(number - edge)
        low = first // n * self.side + first % n * self.patch
        high = last // n * self.side + last % n * self.patch + self.patch
        start, unit = self.frame[axis], (self.frame[axis + 2] - self.frame[axis]) / self.canvas[axis]
        return start + low * unit, start + high * unit


def _rectangle(number: list[float], n: int, base: torch.Tensor, tiles: _Tiles) -> torch.Tensor:
    """One token, (4,): a line break, the base picture's patch, or what it shows of the tiles."""
    tile, row, column = number
    if math.isnan(tile):
        return torch.full((4,), torch.nan, dtype=torch.float64)
    if tile == 0:
        return base[round(row) * n + round(column)]
    return torch.tensor(tiles.rectangle(row, column), dtype=torch.float64)


def shared_areas(
    rectangles: torch.Tensor, boxes: Sequence[Sequence[float]], size: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Area that every token shares with every box, and their intersection over union, both (n, boxes), 0 for NaN.

    Args:
        rectangles: (n, 4) in fractions.
        boxes: (x, y, width, height) in pixels of the original picture (COCO's form).
        size: (width, height) of the original picture.
    """
    w, h = size
    ends = torch.tensor([[x / w, y / h, (x + a) / w, (y + b) / h] for x, y, a, b in boxes], dtype=torch.float64)
    ends, tokens = ends.view(1, -1, 4), rectangles[:, None]
    across = (torch.minimum(tokens[..., 2], ends[..., 2]) - torch.maximum(tokens[..., 0], ends[..., 0])).clamp_min(0)
    down = (torch.minimum(tokens[..., 3], ends[..., 3]) - torch.maximum(tokens[..., 1], ends[..., 1])).clamp_min(0)
    shared = across * down
    own = [(r[..., 2] - r[..., 0]) * (r[..., 3] - r[..., 1]) for r in (tokens, ends)]
    union = own[0] + own[1] - shared
    return shared.nan_to_num(0.0), (shared / union).nan_to_num(0.0)


def touched(rectangles: torch.Tensor, boxes: Sequence[Sequence[float]], size: tuple[float, float]) -> torch.Tensor:
    """Key tokens of the paper's appendix E: those whose rectangle intersects a box. Bool (n,)."""
    shared, _ = shared_areas(rectangles, boxes, size)
    return (shared > 1e-12).any(1)  # an edge that only touches is no intersection


def overlap(rectangles: torch.Tensor, boxes: Sequence[Sequence[float]], size: tuple[float, float]) -> torch.Tensor:
    """Largest intersection over union with any box, float32 (n,); equals `regions.box_overlap` on a plain grid."""
    if not len(boxes):
        return torch.zeros(len(rectangles))
    return shared_areas(rectangles, boxes, size)[1].amax(1).float()
