"""Token pruning, to compare plans with: visual tokens that get least attention are dropped behind a decoder layer.

As in FastV (Chen et al. 2024, arXiv 2403.06764): in the prompt, the attention of its last token in the layer before, mean of
the heads, ranks the visual tokens; the layers from there on neither see nor keep the lowest. Here their keys are masked, which
gives the same answers; what a cache would save is counted (`saved`), not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

NAME = "lostattn_drop_tokens"


@dataclass(frozen=True)
class TokenDrop:
    """Drop this share of the visual tokens from decoder layer `layer` (1 or more) on."""

    layer: int
    share: float

    def saved(self, layers: int) -> float:
        """Share of the visual KV cache that this saves in a model of so many layers."""
        return self.share * (layers - self.layer) / layers

    @property
    def key(self) -> str:
        """Names it: file names of its answers."""
        return f"drop-{self.layer}-{self.share:.4f}"


def drop_for(saved: float, layers: int) -> TokenDrop:
    """The drop that saves this share of the visual KV cache: from layer 2 on as in FastV, from layer 1 on where that cannot."""
    layer = 2 if saved <= (layers - 2) / layers - 0.05 else 1
    return TokenDrop(layer, saved * layers / (layers - layer))


class _State:
    """Of one prompt and its continuation: which positions are visual, and which keys are still seen."""

    def __init__(self, drop: TokenDrop) -> None:
        self.drop = drop
        self.visual = torch.zeros(0)
        self.kept: torch.Tensor | None = None

    def rank(self, query: torch.Tensor, key: torch.Tensor, scale: float) -> None:
        """Choose what is dropped: query (B, H, L, D) of the prompt, key (B, H, L, D)."""
        seen = (query[:, :, -1:].float() @ key.float().mT * scale).softmax(-1).mean(1)[:, 0]  # (B, L)
        kept = torch.ones_like(self.visual)
        for row, visual in enumerate(self.visual):
            places = visual.nonzero()[:, 0]
            lowest = seen[row, places].argsort()[: round(self.drop.share * len(places))]
            kept[row, places[lowest]] = False
        self.kept = kept


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA over the keys that are left. Batches have no padding."""
    state: _State = module.lostattn_drop
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    length, total = query.shape[2], key.shape[2]
    seen = torch.ones(length, total, dtype=torch.bool, device=query.device).tril(total - length)[None, None]
    if module.layer_idx >= state.drop.layer and state.kept is not None:
        kept = F.pad(state.kept, (0, total - state.kept.shape[1]), value=True)[:, None, None]
        # a token always sees itself: the rows of dropped tokens, which nobody reads, stay finite
        seen = (seen & kept) | torch.eye(length, total, dtype=torch.bool, device=query.device).roll(total - length, 1)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
    if module.layer_idx == state.drop.layer - 1 and length > 1:
        state.rank(query, key, scale)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def dropping(model: Any, drop: TokenDrop) -> Iterator[None]:
    """A plain model of any family that prunes tokens within the block."""
    state = _State(drop)
    text = model.config.get_text_config()
    before = {
        "text_config": text._attn_implementation,
        "vision_config": model.config.vision_config._attn_implementation,
    }
    attentions = [m for m in model.modules() if getattr(m, "layer_idx", None) is not None and hasattr(m, "q_proj")]

    def look(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named.get("input_ids", arguments[0] if arguments else None)
        if ids is not None and ids.shape[1] > 1:
            state.visual, state.kept = ids == model.config.image_token_id, None

    hook = model.model.register_forward_pre_hook(look, with_kwargs=True)
    for module in attentions:
        module.lostattn_drop = state
    try:
        model.set_attn_implementation({**before, "text_config": NAME})
        yield
    finally:
        hook.remove()
        for module in attentions:
            del module.lostattn_drop
        model.set_attn_implementation(before)
