"""What modes may ask about the images of one encoder call, answered through the model's family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .errors import LostattnError
from .family import Arguments, Family
from .geometry import grid_rectangles
from .pixels import content_digest
from .plan import Pixels, Plan
from .supplied_regions import regions_for
from .tap import Tap


@dataclass(frozen=True)
class EncoderCall:
    """One call of `get_image_features`, or of `get_video_features`; implements `mode.ImageContext`.

    `family` and `arguments` are those of the kind of call (`Family.of`, `Family.arguments_of`).
    """

    family: Family
    plan: Plan
    inner: Any
    pixel_values: torch.Tensor
    arguments: Arguments
    lengths: Sequence[int]
    tap: Tap | None = None

    @property
    def device(self) -> torch.device:
        return self.pixel_values.device

    @property
    def _pixels(self) -> Pixels | None:
        """How the pixels of this call are normalised."""
        own = self.plan.video_pixels if self.family.kind == "video" else None
        return own or self.plan.pixels

    def _images(self) -> list[torch.Tensor]:
        return self.family.split(self.inner, self.pixel_values, self.arguments)

    def complexity(self) -> list[torch.Tensor]:
        """Patch complexity of every visual token."""
        result = self.family.complexity(self.inner, self._images(), self.arguments, self._pixels)
        return self._checked(result)

    def received_attention(self) -> list[torch.Tensor]:
        """Attention that every visual token receives in the vision encoder's last layer."""
        if self.tap is None or not self.tap.received:
            raise LostattnError(
                "the vision tower's attention could not be read: its attention implementation was changed after loading; "
                "load the patched model anew"
            )
        return self._checked(self.family.received(self.inner, self.tap, self.arguments))

    def digests(self) -> list[bytes]:
        """A digest of seed and content of every image."""
        return [content_digest(self.plan.seed, image, self._pixels) for image in self._images()]

    def region_overlaps(self) -> list[torch.Tensor]:
        """Overlap of every visual token with the boxes that `use_regions` supplies."""
        if self.family.kind == "video":
            raise LostattnError(
                "mode 'region' knows boxes in images alone: send frames as images, or plan another mode"
            )
        result = regions_for(self.inner).overlaps(self.inner, self.arguments, self.lengths)
        return self._checked([w.to(self.device) for w in result])

    def places(self) -> list[torch.Tensor]:
        """(row, column) of every token's centre, float32 (n, 2) per image, from -1 (top, left) to 1; 0 where none is shown.

        Places are those in what the encoder is given, so in a tile where every tile has a prior of its own.
        """
        if self.family.tiled:
            sides = [math.isqrt(n) for n in self.lengths]
            if any(side**2 != n for side, n in zip(sides, self.lengths, strict=True)):
                raise LostattnError(
                    f"a tile of family '{self.family.name}' has {max(self.lengths)} tokens, which are no square"
                )
            return self._checked([_centres(grid_rectangles(side, side)).to(self.device) for side in sides])
        stated = self.arguments.get("image_sizes")  # (height, width)
        sizes = (
            [(1, 1)] * len(self.lengths)
            if stated is None
            else [(int(w), int(h)) for h, w in torch.as_tensor(stated).tolist()]
        )
        arguments = {**self.arguments, "pixel_values": self.pixel_values}
        rectangles = self.family.rectangles(self.inner, arguments, sizes, None)
        results = [_centres(r).to(self.device) for r in rectangles]
        return self._checked(results)

    def _checked(self, found: list[torch.Tensor]) -> list[torch.Tensor]:
        lengths = [len(w) for w in found]
        if lengths != list(self.lengths):
            raise LostattnError(
                f"the prior has {lengths} numbers but the {self.family.kind}s have {list(self.lengths)} visual tokens: "
                f"family '{self.family.name}' does not match this model's image processing"
            )
        return [w.float() for w in found]


def _centres(rectangles: torch.Tensor) -> torch.Tensor:
    """Centres (row, column) of rectangles (n, 4) given in fractions of a picture, within [-1, 1]; 0 for NaN."""
    left, top, right, bottom = rectangles.unbind(1)
    return torch.stack([top + bottom - 1, left + right - 1], 1).nan_to_num(0.0).clamp(-1, 1)
