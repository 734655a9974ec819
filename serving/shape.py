"""Family and decoder shape of a checkpoint, from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..patches.errors import LostattnError
from ..patches.family import Family, get_family
from .cause import cause

MOST_LAYERS = 100_000


@dataclass(frozen=True)
class Shape:
    """Of a model's decoder; `dtype_bytes` of one number in its KV cache."""

    family: Family
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype_bytes: int


def model_shape(config: Mapping[str, Any]) -> Shape:
    """Read a parsed config.json, plain or patched, in the layout of any transformers version.

    Raises:
        LostattnError: a family that is not supported, or a config that it cannot read.
    """
    family = get_family(str(config.get("model_type")))
    refuse_absurd(config)
    kept = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "auto_map", "sap")}
    try:
        parsed = family.plain_class.config_class.from_dict(kept)
        family.check(parsed)
        text = parsed.get_text_config()
        heads = text.num_attention_heads
        kv_heads = text.num_key_value_heads or heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        shape = Shape(family, text.num_hidden_layers, heads, kv_heads, dim, _bytes(parsed.dtype or text.dtype))
    except LostattnError:
        raise
    except Exception as error:  # transformers raises whatever its validators raise
        raise LostattnError(
            f"config.json cannot be read as {family.name} ({cause(error)}): download it again"
        ) from error
    _check(shape)
    return shape


def refuse_absurd(config: Mapping[str, Any]) -> None:
    """Numbers of layers that would take hours to write down: transformers lists the kind of every layer."""
    for part in (config, config.get("text_config"), config.get("vision_config")):
        for name in ("num_hidden_layers", "depth", "num_layers"):
            found = part.get(name) if isinstance(part, Mapping) else None
            if isinstance(found, int) and found > MOST_LAYERS:
                raise LostattnError(f"config.json says {name} {found}, which no model has: download it again")


def _check(shape: Shape) -> None:
    numbers = {
        "layers": shape.layers,
        "heads": shape.heads,
        "KV heads": shape.kv_heads,
        "numbers per head": shape.head_dim,
    }
    for what, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise LostattnError(f"config.json says that the decoder has {value!r:.80} {what}: download it again")
    if shape.heads % shape.kv_heads:
        raise LostattnError(
            f"config.json says that {shape.heads} heads share {shape.kv_heads} KV heads, which cannot be: download it again"
        )


def _bytes(dtype: Any) -> int:
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else 2
