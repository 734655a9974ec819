"""Family `qwen3_5`: Qwen3.5, the dense ones (0.8B to 27B).

Three layers of four keep a state of fixed size (gated delta rule) instead of keys and values: only the others, layers 3, 7, 11
and so on, have attention that can be patched, and what they give is gated afterwards as ever. The paper tested no model of it:
layers and heads are by default those that it gives for Qwen2.5-VL, as far as they have attention.
"""

from __future__ import annotations

from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5Model

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import ROW_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapQwen3_5Config(Qwen3_5Config):
    """Configuration of a patched Qwen3.5; its plan is `sap`."""

    model_type = "sap_qwen3_5"


class SapQwen3_5Model(SapInner, Qwen3_5Model):
    """Qwen3.5 without head, patched."""

    config_class = SapQwen3_5Config


class SapQwen3_5ForConditionalGeneration(SapGeneration, Qwen3_5ForConditionalGeneration):
    """Qwen3.5 with a Shared Attention Prior."""

    config_class = SapQwen3_5Config
    inner_class = SapQwen3_5Model


FAMILY = register_family(
    Family(
        name="qwen3_5",
        title="Qwen3.5, the dense ones (0.8B to 27B)",
        config_class=SapQwen3_5Config,
        model_class=SapQwen3_5ForConditionalGeneration,
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
