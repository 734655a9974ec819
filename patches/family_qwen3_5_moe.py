"""Family `qwen3_5_moe`: Qwen3.5 with experts (35B-A3B, 122B-A10B, 397B-A17B) and Qwen3.6.

Three layers of four keep a state of fixed size (gated delta rule) instead of keys and values: only the others, layers 3, 7, 11
and so on, have attention that can be patched, and what they give is gated afterwards as ever. The paper tested no model of it:
layers and heads are by default those that it gives for Qwen2.5-VL, as far as they have attention.
"""

from __future__ import annotations

from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeModel

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import ROW_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapQwen3_5MoeConfig(Qwen3_5MoeConfig):
    """Configuration of a patched Qwen3.5 with experts; its plan is `sap`."""

    model_type = "sap_qwen3_5_moe"


class SapQwen3_5MoeModel(SapInner, Qwen3_5MoeModel):
    """Qwen3.5 with experts without head, patched."""

    config_class = SapQwen3_5MoeConfig


class SapQwen3_5MoeForConditionalGeneration(SapGeneration, Qwen3_5MoeForConditionalGeneration):
    """Qwen3.5 with experts and a Shared Attention Prior."""

    config_class = SapQwen3_5MoeConfig
    inner_class = SapQwen3_5MoeModel


FAMILY = register_family(
    Family(
        name="qwen3_5_moe",
        title="Qwen3.5 with experts (35B-A3B, 122B-A10B, 397B-A17B) and Qwen3.6",
        config_class=SapQwen3_5MoeConfig,
        model_class=SapQwen3_5MoeForConditionalGeneration,
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
