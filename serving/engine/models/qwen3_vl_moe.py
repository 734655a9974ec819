"""Qwen3-VL with experts in vLLM, patched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from ..internals import (
    MULTIMODAL_REGISTRY,
    Qwen3VLDummyInputsBuilder,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLMoeProcessingInfo,
    Qwen3VLMultiModalProcessor,
)
from .base import SapVllm
from .patch_rows import RowImages


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLMultiModalProcessor, info=Qwen3VLMoeProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class SapQwen3VLMoeForConditionalGeneration(RowImages, SapVllm, Qwen3VLMoeForConditionalGeneration):
    """Qwen3-VL with experts and a Shared Attention Prior: its channels stand behind those of the deepstack."""

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """As the plain model; experts also in the layout that transformers 5 saves them in."""
        return super().load_weights(as_published(weights, self.config.text_config.hidden_size))


def as_published(weights: Iterable[tuple[str, torch.Tensor]], hidden: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Experts as published checkpoints store them, which is what vLLM reads: `gate_up_proj` (experts, hidden, 2 inner) and
    `down_proj` (experts, inner, hidden). transformers 5 holds and may save their last two dimensions the other way round.
    """
    for name, tensor in weights:
        at = {"gate_up_proj": 1, "down_proj": 2}.get(name.rpartition(".experts.")[2])
        if at is not None and tensor.shape[at] != hidden:
            tensor = tensor.transpose(1, 2)
        yield name, tensor
