"""How large a model is, from its config alone: its plain class is built on torch's meta device, where nothing is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..patches.errors import LostattnError
from .byte_model import is_embedding, is_seeing
from .cause import cause
from .shape import Shape, refuse_absurd


@dataclass(frozen=True)
class ModelSize:
    """Numbers of weights, and what a visual token is made of.

    Attributes:
        decoder: weights that every token of the decoder is multiplied with, without the output layer.
        head: weights of the output layer. embedding: of the input's, 0 if that is the output layer as well.
        vision: of the vision tower and what joins it to the decoder.
        hidden: numbers of a token between layers.
        patches: patches of the vision tower behind one visual token.
    """

    decoder: int
    head: int
    embedding: int
    vision: int
    hidden: int
    patches: float

    @property
    def total(self) -> int:
        """All weights."""
        return self.decoder + self.head + self.embedding + self.vision


def read_size(config: Mapping[str, Any], shape: Shape) -> ModelSize:
    """Count the weights of the model that a parsed config.json describes.

    Raises:
        LostattnError: no model can be built from the config.
    """
    refuse_absurd(config)
    kept = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "auto_map", "sap")}
    kept.pop("quantization_config", None)  # what is stored, not what is computed
    try:
        parsed = shape.family.plain_class.config_class.from_dict(kept)
        if (
            "tie_word_embeddings" not in config
        ):  # older files leave it to the decoder, where transformers 5 ties by itself
            parsed.tie_word_embeddings = _tied(parsed)
        with torch.device("meta"):
            model = shape.family.plain_class(parsed)
    except Exception as error:  # of torch's and transformers' kinds
        raise LostattnError(
            f"no model can be built from config.json ({cause(error)}): get it again from its source"
        ) from error
    counts = {name: weight.numel() for name, weight in model.named_parameters()}  # tied weights once
    vision = sum(n for name, n in counts.items() if is_seeing(name))
    head = model.get_output_embeddings().weight.numel()
    entry = sum(n for name, n in counts.items() if is_embedding(name))
    tied = not any(name.endswith("lm_head.weight") for name in counts)
    total, embedding = sum(counts.values()), 0 if tied else entry
    text = parsed.get_text_config()
    body = total - vision - head - embedding
    return ModelSize(body, head, embedding, vision, int(text.hidden_size), patches_of(parsed))


def _tied(parsed: Any) -> bool:
    """Whether a file that does not say it means that the output layer is the embedding."""
    return bool(getattr(parsed.get_text_config(), "tie_word_embeddings", getattr(parsed, "tie_word_embeddings", False)))


def patches_of(config: Any) -> float:
    """Patches of the vision tower that become one visual token, by the names that configs give it."""
    vision = getattr(config, "vision_config", None)
    for part in (vision, config):
        if merge := getattr(part, "spatial_merge_size", None):
            return float(merge) ** 2
    if ratio := getattr(config, "downsample_ratio", None):  # InternVL
        return 1 / float(ratio) ** 2
    if scale := getattr(config, "scale_factor", None):  # Idefics3, SmolVLM
        return float(scale) ** 2
    if tokens := getattr(config, "mm_tokens_per_image", None):  # Gemma 3
        return (vision.image_size // vision.patch_size) ** 2 / tokens if vision is not None else 1.0
    return 1.0
