"""Family `qwen3_vl_moe`: Qwen3-VL with experts (30B-A3B, 235B-A22B).

Experts leave attention alone. The paper tested no model of it: the default layers and heads are those of its Qwen2.5-VL.
"""

from __future__ import annotations

from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeModel

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import ROW_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapQwen3VLMoeConfig(Qwen3VLMoeConfig):
    """Configuration of a patched Qwen3-VL with experts; its plan is `sap`."""

    model_type = "sap_qwen3_vl_moe"


class SapQwen3VLMoeModel(SapInner, Qwen3VLMoeModel):
    """Qwen3-VL with experts, without head, patched.

    Deepstack features are added to the hidden states of visual positions between layers; the prior leaves them alone.
    """

    config_class = SapQwen3VLMoeConfig


class SapQwen3VLMoeForConditionalGeneration(SapGeneration, Qwen3VLMoeForConditionalGeneration):
    """Qwen3-VL with experts and a Shared Attention Prior."""

    config_class = SapQwen3VLMoeConfig
    inner_class = SapQwen3VLMoeModel


FAMILY = register_family(
    Family(
        name="qwen3_vl_moe",
        title="Qwen3-VL with experts (30B-A3B, 235B-A22B)",
        config_class=SapQwen3VLMoeConfig,
        model_class=SapQwen3VLMoeForConditionalGeneration,
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
