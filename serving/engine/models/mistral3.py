"""Mistral Small 3.1 and its like in vLLM, patched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ....patches.errors import LostattnError
from ....patches.family_mistral3 import order
from ....patches.mode import get_mode
from ....patches.tap import Tap
from ..internals import (
    MULTIMODAL_REGISTRY,
    Mistral3DummyInputsBuilder,
    Mistral3ForConditionalGeneration,
    Mistral3MultiModalProcessor,
    Mistral3ProcessingInfo,
)
from .base import SapVllm


@MULTIMODAL_REGISTRY.register_processor(
    Mistral3MultiModalProcessor, info=Mistral3ProcessingInfo, dummy_inputs=Mistral3DummyInputsBuilder
)
class SapMistral3ForConditionalGeneration(SapVllm, Mistral3ForConditionalGeneration):
    """Mistral 3 with a Shared Attention Prior."""

    sap_kind: ClassVar[str] = "pixel_values_pixtral"

    def sap_prepare(self, vllm_config: Any) -> None:
        """Refuse to listen to a tower whose last layers vLLM leaves out."""
        built, wanted = len(self.vision_tower.transformer.layers), self.config.vision_config.num_hidden_layers
        if get_mode(self.sap_plan.mode).listens and built < wanted:
            raise LostattnError(
                f"mode '{self.sap_plan.mode}' listens to layer {wanted - 1} of the vision tower, of which vLLM builds {built} "
                "layers (vision_feature_layer in config.json): serve another mode"
            )

    def sap_pixels(self, image_input: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Pictures of their own sizes on one canvas."""
        return on_canvas(list(image_input["pixel_values"]))

    def _process_image_input(self, image_input: Any) -> Any:
        self.sap_sizes = [tuple(x.shape[-2:]) for x in image_input["pixel_values"]]
        return super()._process_image_input(image_input)

    def sap_tap(self, pool: str) -> tuple[Any, int, Tap]:
        """The last layer, which looks at picture after picture."""
        attention = self.vision_tower.transformer.layers[-1].attention
        orders = [order(self, {"image_sizes": torch.tensor([size])}) for size in self.sap_sizes]
        block = self.config.spatial_merge_size**2
        return attention.attn, attention.n_heads, PictureTap(attention.attn, block, pool, orders=orders)


@dataclass
class PictureTap(Tap):
    """Hears every picture in a call of its own, with an order of patches of its own."""

    orders: Sequence[torch.Tensor] = ()

    def listen(self, *args: Any, **kwargs: Any) -> None:
        """See `Tap`."""
        self.order = self.orders[len(self.received)]
        super().listen(*args, **kwargs)


def on_canvas(pictures: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pictures (3, h, w) as one batch (N, 3, H, W), filled up with zeros, and their sizes, int64 (N, 2)."""
    sizes = torch.tensor([x.shape[-2:] for x in pictures])
    canvas = pictures[0].new_zeros(len(pictures), 3, *sizes.amax(0).tolist())
    for to, picture in zip(canvas, pictures, strict=True):
        to[:, : picture.shape[1], : picture.shape[2]] = picture
    return canvas, {"image_sizes": sizes}
