"""Family `qwen2_vl`: Qwen2-VL, whose vision tower has no windows.

The paper tested no model of it: the default layers and heads are those of its Qwen2.5-VL, which has the same decoder.
"""

from __future__ import annotations

from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import ROW_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapQwen2VLConfig(Qwen2VLConfig):
    """Configuration of a patched Qwen2-VL; its plan is `sap`."""

    model_type = "sap_qwen2_vl"


class SapQwen2VLModel(SapInner, Qwen2VLModel):
    """Qwen2-VL without head, patched."""

    config_class = SapQwen2VLConfig


class SapQwen2VLForConditionalGeneration(SapGeneration, Qwen2VLForConditionalGeneration):
    """Qwen2-VL with a Shared Attention Prior."""

    config_class = SapQwen2VLConfig
    inner_class = SapQwen2VLModel


FAMILY = register_family(
    Family(
        name="qwen2_vl",
        title="Qwen2-VL",
        config_class=SapQwen2VLConfig,
        model_class=SapQwen2VLForConditionalGeneration,
        layers=(1, 27),
        heads=(0.3, 0.6),
        rescaled=False,
        two_sided=False,
        split=split_rows,
        complexity=merged_complexity,
        tap=merged_tap,
        received=received_by_blocks,
        rectangles=merged_grid,
        videos=ROW_VIDEOS,
    )
)
