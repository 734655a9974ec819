"""Family `smolvlm`: SmolVLM and SmolVLM2.

Every tile of a picture, and the global picture, is an image of its own to the encoder and has a prior of its own. The paper
tested none of these models: layers and heads are by default those that it gives for LLaVA-OneVision, clipped to the model's
depth.
"""

from __future__ import annotations

from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMModel

from .family import Family, register_family
from .idefics import item_complexity, item_order, item_received, item_rectangles, item_tap, read_splits, split_items
from .inner import SapInner
from .modeling import SapGeneration


class SapSmolVLMConfig(SmolVLMConfig):
    """Configuration of a patched SmolVLM and SmolVLM2; its plan is `sap`."""

    model_type = "sap_smolvlm"


class SapSmolVLMModel(SapInner, SmolVLMModel):
    """SmolVLM and SmolVLM2 without head, patched."""

    config_class = SapSmolVLMConfig


class SapSmolVLMForConditionalGeneration(SapGeneration, SmolVLMForConditionalGeneration):
    """SmolVLM and SmolVLM2 with a Shared Attention Prior."""

    config_class = SapSmolVLMConfig
    inner_class = SapSmolVLMModel


FAMILY = register_family(
    Family(
        name="smolvlm",
        title="SmolVLM and SmolVLM2",
        config_class=SapSmolVLMConfig,
        model_class=SapSmolVLMForConditionalGeneration,
        layers=(21, 27),
        heads=(0.3, 0.6),
        rescaled=True,
        two_sided=True,
        split=split_items,
        complexity=item_complexity,
        tap=item_tap,
        received=item_received,
        rectangles=item_rectangles,
        towers=("smolvlm_vision",),
        text_models=("llama",),
        video="as pictures",
        order=item_order,
        tiled=True,
        fit=read_splits,
        stacked_features=True,
    )
)
