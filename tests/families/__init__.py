"""What the tests know of every family, one file `<model_type>.py` each: tiny models, hand-made inputs, real processors.

A new family adds its file; the tests run over all registered families and fail for one that has none.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

IMAGE, VIDEO = 150, 151
LAYERS, HEADS, KV_HEADS = 3, 4, 2
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": 200,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "initializer_range": 0.2,
}
CLIP = {**TOWER, "model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = {**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False}
PINPOINTS = [[56, 112], [112, 56], [112, 112]]

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TinyVideos:
    """Hand-made videos of a family.

    Attributes:
        runs: visual tokens of the first and of the second video; several where text stands between them.
        inputs: (number of videos, random generator) -> what the model gets besides ids and mask.
        token: what stands for a visual token.
        received: as in `TinyFamily`, of videos.
    """

    runs: tuple[tuple[int, ...], ...]
    inputs: Callable[[int, torch.Generator], Inputs]
    received: Callable[[Any, Inputs, list[torch.Tensor], str], list[torch.Tensor]]
    token: int = VIDEO


@dataclass(frozen=True)
class TinyFamily:
    """One family.

    Attributes:
        configs: name -> tiny config; names are `<model_type>` or `<model_type>-<variant>`, the first stands for the family.
        tokens: visual tokens of the hand-made image.
        size: (width, height) of the picture that the hand-made image could have come from.
        inputs: (input ids (1, S), number of images, random generator) -> what the model gets besides ids and mask.
        placeholder: what stands for a picture in a prompt.
        serve: (config, token -> number) changes a tiny config for vLLM: special tokens, sizes of the tower.
        processor: (config, tokenizer, chat template) -> the real processor.
        received: (config, inputs, attention weights of the tower's calls (B, heads, N, N), pool) -> mean attention that every
            visual token receives in the tower's last layer, by hand, one (n,) per image.
        depth: layers of the decoder; layers: those that can be patched.
        videos: hand-made videos; None where the model has none.
        rounding: largest difference of logits between two ways to compute the same in float32.
        engine_dtype: the one type that vLLM's CPU kernels take for it.
        special: special tokens of its prompts.
        published: prefixes of saved weights that published checkpoints name otherwise: (saved, published).
        transposed: endings of saved weights whose last two dimensions published checkpoints swap.
    """

    configs: Mapping[str, Callable[[], Any]]
    tokens: int
    size: tuple[int, int]
    inputs: Callable[[torch.Tensor, int, torch.Generator], Inputs]
    placeholder: str
    serve: Callable[[Any, Callable[[str], int]], None]
    processor: Callable[[Any, Any, str], Any]
    received: Callable[[Any, Inputs, list[torch.Tensor], str], list[torch.Tensor]]
    videos: TinyVideos | None = None
    engine_dtype: str = "float32"
    rounding: float = 2e-4
    depth: int = LAYERS
    layers: tuple[int, ...] = tuple(range(LAYERS))
    special: tuple[str, ...] = ()
    published: tuple[str, str] | None = None
    transposed: tuple[str, ...] = ()


def find_families() -> dict[str, TinyFamily]:
    """Every file of this folder, by its name."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__))
    return {n: importlib.import_module(f"{__name__}.{n}").TINY for n in names if not n.startswith("shared")}
