"""Family `idefics3`: Idefics 3.

Every tile of a picture, and the global picture, is an image of its own to the encoder and has a prior of its own. The paper
tested none of these models: layers and heads are by default those that it gives for LLaVA-OneVision, clipped to the model's
depth.
"""

from __future__ import annotations

from transformers import Idefics3Config, Idefics3ForConditionalGeneration
from transformers.models.idefics3.modeling_idefics3 import Idefics3Model

from .family import Family, register_family
from .idefics import item_complexity, item_order, item_received, item_rectangles, item_tap, read_splits, split_items
from .inner import SapInner
from .modeling import SapGeneration


class SapIdefics3Config(Idefics3Config):
    """Configuration of a patched Idefics 3; its plan is `sap`."""

    model_type = "sap_idefics3"


class SapIdefics3Model(SapInner, Idefics3Model):
    """Idefics 3 without head, patched."""

    config_class = SapIdefics3Config


class SapIdefics3ForConditionalGeneration(SapGeneration, Idefics3ForConditionalGeneration):
    """Idefics 3 with a Shared Attention Prior."""

    config_class = SapIdefics3Config
    inner_class = SapIdefics3Model


FAMILY = register_family(
    Family(
        name="idefics3",
        title="Idefics 3",
        config_class=SapIdefics3Config,
        model_class=SapIdefics3ForConditionalGeneration,
        layers=(21, 27),
        heads=(0.3, 0.6),
        rescaled=True,
        two_sided=True,
        split=split_items,
        complexity=item_complexity,
        tap=item_tap,
        received=item_received,
        rectangles=item_rectangles,
        towers=("idefics3_vision",),
        text_models=("llama",),
        video="has none",
        order=item_order,
        tiled=True,
        fit=read_splits,
        stacked_features=True,
    )
)
