"""Family `glm_ocr`: GLM-OCR, which reads documents.

The paper tested no model of it: the default layers and heads are those of its Qwen2.5-VL, clipped to the model's depth.
"""

from __future__ import annotations

from transformers import GenerationMixin, GlmOcrConfig, GlmOcrForConditionalGeneration
from transformers.models.glm_ocr.modeling_glm_ocr import GlmOcrModel

from .family import Family, register_family
from .geometry import merged_grid
from .inner import SapInner
from .merged import GLM_VIDEOS, merged_complexity, merged_tap, received_by_blocks, split_rows
from .modeling import SapGeneration


class SapGlmOcrConfig(GlmOcrConfig):
    """Configuration of a patched GLM-OCR; its plan is `sap`."""

    model_type = "sap_glm_ocr"


class SapGlmOcrModel(SapInner, GlmOcrModel):
    """GLM-OCR without head, patched."""

    config_class = SapGlmOcrConfig


class SapGlmOcrForConditionalGeneration(SapGeneration, GlmOcrForConditionalGeneration):
    """GLM-OCR with a Shared Attention Prior."""

    config_class = SapGlmOcrConfig
    inner_class = SapGlmOcrModel
    # transformers' own order of images under beams is wrong as soon as a prompt has two; the general one is right
    _expand_multimodal_outputs = GenerationMixin._expand_multimodal_outputs


FAMILY = register_family(
    Family(
        name="glm_ocr",
        title="GLM-OCR",
        config_class=SapGlmOcrConfig,
        model_class=SapGlmOcrForConditionalGeneration,
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
