"""What modes may ask about the images of one encoder call, answered through the model's family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .errors import LostattnError
from .family import Arguments, Family
from .pixels import content_digest
from .plan import Plan
from .supplied_regions import regions_for
from .tap import Tap


@dataclass(frozen=True)
class EncoderCall:
    """One call of `get_image_features`; implements `mode.ImageContext`."""

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

    def _images(self) -> list[torch.Tensor]:
        return self.family.split(self.inner, self.pixel_values, self.arguments)

    def complexity(self) -> list[torch.Tensor]:
        """Patch complexity of every visual token."""
        found = self.family.complexity(self.inner, self._images(), self.arguments, self.plan.pixels)
        return self._checked(found)

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
        return [content_digest(self.plan.seed, image, self.plan.pixels) for image in self._images()]

    def region_overlaps(self) -> list[torch.Tensor]:
        """Overlap of every visual token with the boxes that `use_regions` supplies."""
        found = regions_for(self.inner).overlaps(self.inner, self.arguments, self.lengths)
        return self._checked([w.to(self.device) for w in found])

    def _checked(self, found: list[torch.Tensor]) -> list[torch.Tensor]:
        lengths = [len(w) for w in found]
        if lengths != list(self.lengths):
            raise LostattnError(
                f"the prior has {lengths} numbers but the images have {list(self.lengths)} visual tokens: "
                f"family '{self.family.name}' does not match this model's image processing"
            )
        return [w.float() for w in found]
