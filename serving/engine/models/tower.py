"""Listening to CLIP and SigLIP towers, whose last layers vLLM leaves out where a model takes its features before them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ....patches.mode import get_mode
from ....patches.tap import Tap
from ....patches.tiles import dropped
from ..internals import AutoWeightsLoader, MMEncoderAttention

MARK = ".encoder.layers."


class LastLayers(torch.nn.Module):
    """The tower's layers behind the feature layer, for mode `vision_attention` alone."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, hidden: torch.Tensor) -> None:
        """Run on the feature layer's output (B, N, width), as far as the last layer's attention."""
        for layer in self.layers[:-1]:
            hidden = layer(hidden)
        last: Any = self.layers[-1]
        last.self_attn(last.layer_norm1(hidden))


class TowerTap:
    """Mixed in for models with a `vision_tower`."""

    def sap_prepare(self, vllm_config: Any) -> None:
        """Build the layers that only the tap needs."""
        tower, config = self._tower(), self.config.vision_config  # type: ignore[attr-defined]
        built = len(tower.encoder.layers)
        if not get_mode(self.sap_plan.mode).listens or built == config.num_hidden_layers:  # type: ignore[attr-defined]
            return
        kind = type(tower.encoder.layers[0])
        self.sap_last = LastLayers(
            [
                kind(
                    config,
                    quant_config=vllm_config.quant_config,
                    prefix=f"sap_last.layers.{i}",
                    attn_cls=MMEncoderAttention,
                )
                for i in range(built, config.num_hidden_layers)
            ]
        )

    def sap_tap(self, pool: str) -> tuple[Any, int, Tap]:
        """The last layer's attention; its heads; patches are not merged, tokens that the model drops are none."""
        layers = self._tower().encoder.layers if self._last() is None else self._last().layers
        attention = layers[-1].self_attn
        skip = dropped(self.config)  # type: ignore[attr-defined]
        return attention.attn, attention.num_heads_per_partition, Tap(attention.attn, pool=pool, skip=skip)

    @contextmanager
    def sap_side_path(self) -> Iterator[None]:
        """Let the missing layers run behind the tower while the block runs."""
        if self._last() is None:
            yield
            return
        last = self._last()
        handle = self._tower().encoder.layers[-1].register_forward_hook(lambda module, args, out: last(out))
        try:
            yield
        finally:
            handle.remove()

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """As the plain model; the weights of the layers that only the tap needs go there."""
        if self._last() is None:
            return super().load_weights(weights)  # type: ignore[misc]
        built = len(self._tower().encoder.layers)
        kept: list[tuple[str, torch.Tensor]] = []

        def passing() -> Iterator[tuple[str, torch.Tensor]]:
            for name, tensor in weights:
                number = _layer_number(name)
                if number is not None and number >= built:
                    kept.append(
                        (f"layers.{number - built}.{name.partition(MARK)[2].partition('.')[2]}", tensor.clone())
                    )
                else:
                    yield name, tensor

        loaded: set[str] = super().load_weights(passing())  # type: ignore[misc]
        mapper = self._tower().hf_to_vllm_mapper
        return loaded | {
            f"sap_last.{name}" for name in AutoWeightsLoader(self._last()).load_weights(kept, mapper=mapper)
        }

    def _last(self) -> Any:
        return self._modules.get("sap_last")  # type: ignore[attr-defined]

    def _tower(self) -> Any:
        return self.vision_tower.vision_model  # type: ignore[attr-defined]


def _layer_number(name: str) -> int | None:
    """Number of the vision layer that a checkpoint's tensor belongs to."""
    if "vision_tower" not in name or MARK not in name:
        return None
    return int(name.partition(MARK)[2].partition(".")[0])
