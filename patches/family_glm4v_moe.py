"""Family `glm4v_moe`: GLM-4.5V and GLM-4.6V, which have experts.

Experts leave attention alone. The paper tested no model of it: the default layers and heads are those of its Qwen2.5-VL.
"""

from __future__ import annotations

from transformers import GenerationMixin, Glm4vMoeConfig, Glm4vMoeForConditionalGeneration
from transformers.models.glm4v_moe.modeling_glm4v_moe import Glm4vMoeModel

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import GLM_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapGlm4vMoeConfig(Glm4vMoeConfig):
    """Configuration of a patched GLM-4.5V or GLM-4.6V; its plan is `sap`."""

    model_type = "sap_glm4v_moe"


class SapGlm4vMoeModel(SapInner, Glm4vMoeModel):
    """GLM-4.5V or GLM-4.6V without head, patched."""

    config_class = SapGlm4vMoeConfig


class SapGlm4vMoeForConditionalGeneration(SapGeneration, Glm4vMoeForConditionalGeneration):
    """GLM-4.5V or GLM-4.6V with a Shared Attention Prior."""

    config_class = SapGlm4vMoeConfig
    inner_class = SapGlm4vMoeModel
    # transformers' own order of images under beams is wrong as soon as a prompt has two; the general one is right
    _expand_multimodal_outputs = GenerationMixin._expand_multimodal_outputs


FAMILY = register_family(
    Family(
        name="glm4v_moe",
        title="GLM-4.5V and GLM-4.6V",
        config_class=SapGlm4vMoeConfig,
        model_class=SapGlm4vMoeForConditionalGeneration,
        layers=(1, 27),
        heads=(0.3, 0.6),
        rescaled=False,
        two_sided=False,
        split=split_rows,
        complexity=merged_complexity,
        tap=merged_tap,
        received=received_by_blocks,
        rectangles=merged_grid,
        videos=GLM_VIDEOS,
    )
)
