"""What the layers of a decoder keep of every token, read from its configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import LostattnError

ATTENDING = ("full_attention", "sliding_attention", "chunked_attention")  # kinds of layers with keys and values
COMPRESSED = (
    "the decoder keeps one compressed vector a token for all heads (multi-head latent attention, kv_lora_rank in "
    "config.json), so that no head of it can be patched alone: choose another model"
)


@dataclass(frozen=True)
class DecoderLayer:
    """One layer.

    Attributes:
        kv_heads: its KV heads; 0 where it keeps a state of fixed size (linear attention, convolution) and so has no
            attention that a plan could replace.
        head_dim: numbers of a head.
        window: how many tokens it looks back, its own included; None for all.
        source: the layer whose keys and values it reads: itself, unless it shares those of an earlier one.
    """

    kv_heads: int
    head_dim: int
    window: int | None
    source: int

    @property
    def attends(self) -> bool:
        """True if a plan can patch it."""
        return self.kv_heads != 0


def decoder_layers(text: Any) -> tuple[DecoderLayer, ...]:
    """All layers of a decoder, from its configuration of transformers.

    Raises:
        LostattnError: a decoder whose cache holds no heads (multi-head latent attention).
    """
    if getattr(text, "kv_lora_rank", None):
        raise LostattnError(COMPRESSED)
    count = text.num_hidden_layers
    kinds = list(getattr(text, "layer_types", None) or ())
    if not kinds:
        kinds = ["sliding_attention" if getattr(text, "sliding_window", None) else "full_attention"] * count
    return tuple(_layer(text, index, kinds) for index in range(count))


def _layer(text: Any, index: int, kinds: list[str]) -> DecoderLayer:
    own = text.per_layer_config[index] if getattr(text, "is_heterogeneous", False) else text
    heads = text.num_attention_heads
    size = getattr(own, "head_dim", None) or text.hidden_size // heads
    if kinds[index] not in ATTENDING:
        return DecoderLayer(0, size, None, index)
    window = getattr(text, "sliding_window", None) if kinds[index] != "full_attention" else None
    return DecoderLayer(own.num_key_value_heads or heads, size, window, _source(text, index, kinds))


def _source(text: Any, index: int, kinds: list[str]) -> int:
    """The last layer of the same kind in front of those that share (`num_kv_shared_layers`), else the layer itself."""
    first = len(kinds) - (getattr(text, "num_kv_shared_layers", None) or 0)
    if index < first or first <= 0:
        return index
    return max(i for i in range(first) if kinds[i] == kinds[index])


def usual_kv_heads(layers: Sequence[DecoderLayer]) -> int:
    """KV heads of most layers with attention; LostattnError if there is no such layer."""
    result = Counter(layer.kv_heads for layer in layers if layer.attends)
    if not result:
        raise LostattnError("no layer of the decoder has attention that a prior could replace: choose another model")
    return result.most_common(1)[0][0]


def other_kv_heads(layers: Sequence[DecoderLayer]) -> dict[int, int]:
    """KV heads of the layers that have another number of them than most (`Plan.layer_kv_heads`)."""
    usual = usual_kv_heads(layers)
    return {i: layer.kv_heads for i, layer in enumerate(layers) if layer.kv_heads != usual}
