"""Family `qwen2_5_vl`: Qwen2.5-VL and its tunes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.vision_utils import get_vision_window_index

from .family import Arguments, Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import ROW_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration
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


def received(inner: Any, tap: Tap, arguments: Arguments) -> list[torch.Tensor]:
    """The tower's patches stand in window order, merge block by merge block."""
    vision = inner.config.vision_config
    index, _ = get_vision_window_index(
        arguments["image_grid_thw"], vision.spatial_merge_size, vision.window_size, vision.patch_size
    )
    return received_by_blocks(inner, tap, arguments, torch.argsort(index))


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
        split=split_rows,
        complexity=merged_complexity,
        tap=merged_tap,
        received=received,
        rectangles=merged_grid,
        videos=ROW_VIDEOS,
    )
)
