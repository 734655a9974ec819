"""The residual stream of every decoder layer, handed out while the model runs and kept nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ...patches.errors import LostattnError
from ...patches.family import decoder_of

# What a decoder layer calls the norm in front of its feed-forward part; its input is the state behind attention.
NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class LayerStates:
    """Residual stream around one layer, each (B, S, H) in the model's dtype (paper 4.2).

    Attributes:
        layer: index.
        before: X_in. attention: X_attn, behind the attention update. after: X_ffn, behind the feed-forward update.
    """

    layer: int
    before: torch.Tensor
    attention: torch.Tensor
    after: torch.Tensor


@contextmanager
def captured(model: Any, visit: Callable[[LayerStates], None]) -> Iterator[None]:
    """Call `visit` with the states of every layer, in order, during forward calls of the block.

    The states are released when `visit` returns; memory does not grow with the number of layers.

    Args:
        model: plain or patched vision-language model.

    Raises:
        LostattnError: layers that are not pre-norm with a norm in front of the feed-forward part.
    """
    handles: list[Any] = []
    try:
        for index, layer in enumerate(decoder_of(model.model).layers):
            norm = next((getattr(layer, n) for n in NORMS if hasattr(layer, n)), None)
            if norm is None:
                raise LostattnError(
                    f"layer {index} has no norm in front of its feed-forward part: this model is not covered"
                )
            handles += _watch(layer, norm, index, visit)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(layer: Any, norm: Any, index: int, visit: Callable[[LayerStates], None]) -> list[Any]:
    seen: dict[str, torch.Tensor] = {}

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["before"] = args[0] if args else kwargs["hidden_states"]

    def middle(_: Any, args: tuple[Any, ...]) -> None:
        seen["attention"] = args[0]

    def leave(_: Any, args: tuple[Any, ...], out: Any) -> None:
        after = out[0] if isinstance(out, tuple) else out
        states = LayerStates(index, seen.pop("before"), seen.pop("attention"), after)
        visit(states)

    return [
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        norm.register_forward_pre_hook(middle),
        layer.register_forward_hook(leave),
    ]
