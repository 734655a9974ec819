"""Family `qwen3_vl`: Qwen3-VL, the dense ones.

The paper tested no model of it: the default layers and heads are those of its Qwen2.5-VL.
"""

from __future__ import annotations

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import ROW_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapQwen3VLConfig(Qwen3VLConfig):
    """Configuration of a patched Qwen3-VL; its plan is `sap`."""

    model_type = "sap_qwen3_vl"


class SapQwen3VLModel(SapInner, Qwen3VLModel):
    """Qwen3-VL without head, patched.

    Deepstack features are added to the hidden states of visual positions between layers; the prior leaves them alone.
    """

    config_class = SapQwen3VLConfig


class SapQwen3VLForConditionalGeneration(SapGeneration, Qwen3VLForConditionalGeneration):
    """Qwen3-VL with a Shared Attention Prior."""

    config_class = SapQwen3VLConfig
    inner_class = SapQwen3VLModel


FAMILY = register_family(
    Family(
        name="qwen3_vl",
        title="Qwen3-VL (dense)",
        config_class=SapQwen3VLConfig,
        model_class=SapQwen3VLForConditionalGeneration,
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
