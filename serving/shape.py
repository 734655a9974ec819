"""Family and decoder shape of a checkpoint, from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..patches.decoder import COMPRESSED, DecoderLayer, decoder_layers, usual_kv_heads
from ..patches.errors import LostattnError
from ..patches.family import Family, get_family
from .cause import cause

MOST_LAYERS = 100_000
_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts")
_ACTIVE = ("num_experts_per_tok", "top_k_experts")


@dataclass(frozen=True)
class Shape:
    """Of a model's decoder; `dtype_bytes` of one number in its KV cache.

    Attributes:
        kv_heads, head_dim: of most layers.
        table: every layer by itself; empty where all are alike.
        experts: routed experts of a layer and those that a token is sent to; None without any.
    """

    family: Family
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype_bytes: int
    table: tuple[DecoderLayer, ...] = ()
    experts: tuple[int, int] | None = None

    @property
    def every(self) -> tuple[DecoderLayer, ...]:
        """One entry per layer."""
        return self.table or tuple(DecoderLayer(self.kv_heads, self.head_dim, None, i) for i in range(self.layers))

    @property
    def attending(self) -> list[int]:
        """Layers that a plan can patch, ascending."""
        return [i for i, layer in enumerate(self.every) if layer.attends]

    @property
    def told(self) -> str:
        """Its layers and KV heads in words."""
        if not self.table:
            return f"layers 0-{self.layers - 1} and KV heads 0-{self.kv_heads - 1}"
        kinds: dict[int, list[int]] = {}
        for index in self.attending:
            kinds.setdefault(self.every[index].kv_heads, []).append(index)
        return " and ".join(f"KV heads 0-{n - 1} in layers {', '.join(map(str, found))}" for n, found in kinds.items())

    @property
    def kv_groups(self) -> int:
        """(layer, KV head) pairs."""
        return sum(layer.kv_heads for layer in self.every)


def model_shape(config: Mapping[str, Any]) -> Shape:
    """Read a parsed config.json, plain or patched, in the layout of any transformers version.

    Raises:
        LostattnError: a family that is not supported, or a config that it cannot read.
    """
    _refuse_compressed(config)
    family = get_family(str(config.get("model_type")))
    refuse_absurd(config)
    kept = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "auto_map", "sap")}
    try:
        parsed = family.plain_class.config_class.from_dict(kept)
        family.check(parsed)
        text = parsed.get_text_config()
        heads = text.num_attention_heads
        table = decoder_layers(text)
        kv_heads = usual_kv_heads(table)
        usual = next(layer for layer in table if layer.kv_heads == kv_heads)
        alike = all(x == DecoderLayer(kv_heads, usual.head_dim, None, i) for i, x in enumerate(table))
        size = _bytes(parsed.dtype or text.dtype)
        shape = Shape(family, len(table), heads, kv_heads, usual.head_dim, size, () if alike else table, _experts(text))
    except LostattnError:
        raise
    except Exception as error:  # transformers raises whatever its validators raise
        raise LostattnError(
            f"config.json cannot be read as {family.name} ({cause(error)}): download it again"
        ) from error
    _check(shape)
    return shape


def _refuse_compressed(config: Mapping[str, Any]) -> None:
    """Decoders with multi-head latent attention, whatever their family, in `decoder_layers`' own words."""
    for part in (config, config.get("text_config"), config.get("language_config")):
        if isinstance(part, Mapping) and part.get("kv_lora_rank"):
            raise LostattnError(COMPRESSED)


def refuse_absurd(config: Mapping[str, Any]) -> None:
    """Numbers of layers that would take hours to write down: transformers lists the kind of every layer."""
    for part in (config, config.get("text_config"), config.get("vision_config")):
        for name in ("num_hidden_layers", "depth", "num_layers"):
            result = part.get(name) if isinstance(part, Mapping) else None
            if isinstance(result, int) and result > MOST_LAYERS:
                raise LostattnError(f"config.json says {name} {result}, which no model has: download it again")


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


def _experts(text: Any) -> tuple[int, int] | None:
    """Routed experts and active ones, whatever a family calls them; None for a dense decoder."""
    count = next((n for name in _COUNTS if (n := getattr(text, name, None))), None)
    active = next((n for name in _ACTIVE if (n := getattr(text, name, None))), None)
    return (count, active) if count and active and getattr(text, "enable_moe_block", True) else None


def _bytes(dtype: Any) -> int:
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else 2
