"""Family and decoder shape of a checkpoint, from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..patches.errors import LostattnError
from ..patches.family import Family, get_family


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
    kept = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "auto_map", "sap")}
    try:
        parsed = family.plain_class.config_class.from_dict(kept)
        text = parsed.get_text_config()
        heads = text.num_attention_heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        shape = Shape(
            family,
            text.num_hidden_layers,
            heads,
            text.num_key_value_heads or heads,
            dim,
            _bytes(parsed.dtype or text.dtype),
        )
    except Exception as error:  # transformers raises whatever its validators raise
        raise LostattnError(f"config.json cannot be read as {family.name}: {str(error).splitlines()[0]}") from error
    family.check(parsed)
    return shape


def _bytes(dtype: Any) -> int:
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else 2
