"""Boxes that a researcher supplies for mode `region`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from .errors import LostattnError
from .family import get_family
from .geometry import Size, overlap, token_rectangles
from .supplied import slot_of

Boxes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class SuppliedRegions:
    """Boxes for the pictures of the next encoder calls of one model."""

    model: torch.nn.Module
    boxes: tuple[Boxes, ...]
    sizes: tuple[Size, ...]
    fit: Any

    def overlaps(self, inner: Any, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[torch.Tensor]:
        """Largest intersection over union of every visual token with its picture's boxes, (n,) float32 per image or tile.

        Args:
            lengths: visual tokens of every image of the encoder call.

        Raises:
            LostattnError: another number of images, or sizes that are not those of the pictures.
        """
        tiled = get_family(inner.config.model_type).tiled
        if len(lengths) != len(self.boxes) and not tiled:
            raise LostattnError(
                f"use_regions got boxes for {len(self.boxes)} images but this call has {len(lengths)}: give one list per image"
            )
        rectangles = token_rectangles(inner, arguments, self.sizes, self.fit)
        results = [overlap(*each) for each in zip(rectangles, self.boxes, self.sizes, strict=True)]
        return list(torch.cat(results).split(list(lengths))) if tiled else results


_SUPPLIED_REGIONS: ContextVar[tuple[SuppliedRegions, ...]] = ContextVar("lostattn_supplied_regions", default=())


def regions_for(inner: torch.nn.Module) -> SuppliedRegions:
    """What `use_regions` supplies to the model whose inner model this is.

    Raises:
        LostattnError: nothing.
    """
    for result in reversed(_SUPPLIED_REGIONS.get()):
        if result.model is inner or getattr(result.model, "model", None) is inner:
            return result
    raise LostattnError(
        "mode 'region' needs to be told where to look: run the model inside "
        "lostattn.patches.use_regions(model, boxes, sizes)"
    )


@contextmanager
def use_regions(
    model: torch.nn.Module, boxes: Sequence[Boxes], sizes: Sequence[Size], fit: Any = None
) -> Iterator[None]:
    """Tell mode `region` where the evidence is in the images of the next calls.

    Args:
        model: a patched model.
        boxes: per image of the batch, in prompt order, its boxes (x, y, width, height) in pixels of the original picture.
        sizes: per image (width, height) of the original picture.
        fit: how the processor made the tower's one square, or tiles; only LLaVA-1.5 needs it, if its processor does not
            crop, and families that cut pictures into tiles, if theirs is not set as the published ones.

    Raises:
        LostattnError: not a patched model, boxes that are none, or (at the call) another number of images.

    Example:
        >>> with use_regions(model, [[(40, 30, 120, 90)]], [image.size]):
        ...     model.generate(**inputs)
    """
    slot = slot_of(model, "regions")
    if len(boxes) != len(sizes):
        raise LostattnError(f"use_regions got boxes for {len(boxes)} images but {len(sizes)} sizes: give one of each")
    for one in boxes:
        check_boxes(one)
    regions = SuppliedRegions(model, tuple(boxes), tuple((int(w), int(h)) for w, h in sizes), fit)
    token = slot.set((*slot.get(), regions))
    try:
        yield
    finally:
        slot.reset(token)


def check_boxes(boxes: Boxes) -> None:
    """Refuse what is no list of boxes (x, y, width, height) with finite numbers and positive sides."""
    for box in boxes:
        numbers = list(box) if isinstance(box, Sequence) and not isinstance(box, str) else []
        right = all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)
        if len(numbers) != 4 or not right or min(numbers[2:]) <= 0:
            raise LostattnError(f"{box!r:.80} is no box: a box is [x, y, width, height] in pixels, both sides above 0")
