"""Family `glm4v`: GLM-4.1V.

The paper tested no model of it: the default layers and heads are those of its Qwen2.5-VL.
"""

from __future__ import annotations

from transformers import GenerationMixin, Glm4vConfig, Glm4vForConditionalGeneration
from transformers.models.glm4v.modeling_glm4v import Glm4vModel

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import GLM_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapGlm4vConfig(Glm4vConfig):
    """Configuration of a patched GLM-4.1V; its plan is `sap`."""

    model_type = "sap_glm4v"


class SapGlm4vModel(SapInner, Glm4vModel):
    """GLM-4.1V without head, patched."""

    config_class = SapGlm4vConfig


class SapGlm4vForConditionalGeneration(SapGeneration, Glm4vForConditionalGeneration):
    """GLM-4.1V with a Shared Attention Prior."""

    config_class = SapGlm4vConfig
    inner_class = SapGlm4vModel
    # Glm4v's own order of images under beams is wrong as soon as a prompt has two; the general one is right
    _expand_multimodal_outputs = GenerationMixin._expand_multimodal_outputs


FAMILY = register_family(
    Family(
        name="glm4v",
        title="GLM-4.1V",
        config_class=SapGlm4vConfig,
        model_class=SapGlm4vForConditionalGeneration,
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
