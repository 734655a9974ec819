"""Family `glm46v`: GLM-V in the form that names its parts (model type `glm46v`), with or without experts.

The paper tested no model of it: the default layers and heads are those of its Qwen2.5-VL.
"""

from __future__ import annotations

from transformers import GenerationMixin, Glm46VConfig, Glm46VForConditionalGeneration
from transformers.models.glm46v.modeling_glm46v import Glm46VModel

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import GLM_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapGlm46VConfig(Glm46VConfig):
    """Configuration of a patched GLM-4.6V; its plan is `sap`."""

    model_type = "sap_glm46v"


class SapGlm46VModel(SapInner, Glm46VModel):
    """GLM-4.6V without head, patched."""

    config_class = SapGlm46VConfig


class SapGlm46VForConditionalGeneration(SapGeneration, Glm46VForConditionalGeneration):
    """GLM-4.6V with a Shared Attention Prior."""

    config_class = SapGlm46VConfig
    inner_class = SapGlm46VModel
    # transformers' own order of images under beams is wrong as soon as a prompt has two; the general one is right
    _expand_multimodal_outputs = GenerationMixin._expand_multimodal_outputs


FAMILY = register_family(
    Family(
        name="glm46v",
        title="GLM-4.6V in its own form",
        config_class=SapGlm46VConfig,
        model_class=SapGlm46VForConditionalGeneration,
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
        towers=("glm4v_vision", "glm4v_moe_vision"),
        text_models=("glm4v_text", "glm4v_moe_text"),
    )
)
