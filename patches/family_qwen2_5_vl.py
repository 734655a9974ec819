"""Family `qwen2_5_vl`: Qwen2.5-VL and its tunes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.vision_utils import get_vision_window_index

from .family import Arguments, Family, last_attention, register_family
from .geometry import merged_grid
from .modeling import SapGeneration, SapInner
from .pixels import patch_complexity, to_gray, to_rgb
from .plan import Pixels
from .tap import Tap


class SapQwen2_5_VLConfig(Qwen2_5_VLConfig):
    """Configuration of a patched Qwen2.5-VL; its plan is `sap`."""

    model_type = "sap_qwen2_5_vl"


class SapQwen2_5_VLModel(SapInner, Qwen2_5_VLModel):
    """Qwen2.5-VL without head, patched."""

    config_class = SapQwen2_5_VLConfig


class SapQwen2_5_VLForConditionalGeneration(SapGeneration, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with a Shared Attention Prior."""

    config_class = SapQwen2_5_VLConfig
    inner_class = SapQwen2_5_VLModel


def split(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Rows of `pixel_values` are flattened patches (C, T, P, P), each m*m of them one token: per image (n, m*m, T, 3, P, P)."""
    vision = inner.config.vision_config
    size, merge = vision.patch_size, vision.spatial_merge_size**2
    rows = pixel_values.view(-1, merge, vision.in_channels, vision.temporal_patch_size, size, size).transpose(2, 3)
    return list(rows.split([n // merge for n in arguments["image_grid_thw"].prod(-1).tolist()]))


def complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """Complexity of the m P x m P pixels that a token covers (an image's temporal copies are equal: the first counts)."""
    merge = inner.config.vision_config.spatial_merge_size
    found = []
    for image in images:
        gray = to_gray(to_rgb(image[:, :, 0], pixels))  # (n, m*m, P, P)
        square = gray.unflatten(1, (merge, merge)).transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (n, m P, m P)
        found.append(patch_complexity(square))
    return found


def tap(inner: Any, pool: str) -> Tap:
    """Listen to the last vision block, whose patches stand in window order, merge block by merge block."""
    return Tap(last_attention(inner.visual), inner.config.vision_config.spatial_merge_size**2, pool)


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """Undo the window order and take the mean over the queries of each image."""
    vision, grid = inner.config.vision_config, arguments["image_grid_thw"]
    index, _ = get_vision_window_index(grid, vision.spatial_merge_size, vision.window_size, vision.patch_size)
    sums = torch.cat([x[0] for x in tap.received])
    in_order = sums[torch.argsort(index.to(sums.device))]
    lengths = (grid.prod(-1) // vision.spatial_merge_size**2).tolist()
    return [x / len(x) for x in in_order.split(lengths)]


FAMILY = register_family(
    Family(
        name="qwen2_5_vl",
        title="Qwen2.5-VL and its tunes (CoF, Reverse, MM-Eureka, Orsta, Ocean-R1)",
        config_class=SapQwen2_5_VLConfig,
        model_class=SapQwen2_5_VLForConditionalGeneration,
        layers=(1, 27),
        heads=(0.3, 0.6),
        rescaled=False,
        two_sided=False,
        split=split,
        complexity=complexity,
        tap=tap,
        received=received,
        rectangles=merged_grid,
    )
)
