"""Measuring every head of a plain model on image-question pairs: rankings, visual mass, log level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..patches.decoder import decoder_layers, usual_kv_heads
from ..patches.eager import raw_scores
from ..patches.errors import LostattnError
from ..patches.family import Family, decoder_of
from ..patches.heads import mass_ranking, score_ranking
from ..serving.data import Example
from ..serving.resume import Progress, fingerprint
from .calibration import STATISTICS, Calibration
from .chat import Chat
from .checkpoint.provenance import versions

NAME = "lostattn_observe"
ROWS = 64  # text rows behind the image that levels are averaged over: bounds the memory


@dataclass
class Observation:
    """What is measured during one forward call: visual keys (K,) and, per layer, four (H,) tensors."""

    visual: torch.Tensor
    two_sided: bool
    found: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def watch(self, layer: int, q: torch.Tensor, k: torch.Tensor, scale: float) -> None:
        """Measure one layer: q (1, H, S, D), k (1, Hkv, S, D)."""
        last_image = int(self.visual.nonzero()[-1])
        rows = min(ROWS, q.shape[2] - last_image - 1)
        scores = raw_scores(q[:, :, -rows:], k, scale).float()  # (1, H, rows, S)
        visible = torch.ones(rows, k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - rows)
        visual, last = self.visual[None], torch.ones_like(self.visual)[None]
        before = (visual.cumsum(-1) == 0) if self.two_sided else None
        all_lse = scores.masked_fill(~visible, -torch.inf).logsumexp(-1)
        visual_lse = scores.masked_fill(~(visible & visual), -torch.inf).logsumexp(-1)
        self.found[layer] = {
            "mass": mass_ranking(scores[:, :, -1], ~visual, last)[0],
            "score": score_ranking(scores[:, :, -1], ~visual, before)[0],
            "visual_mass": (visual_lse - all_lse).exp().mean(-1)[0],
            "level": visual_lse.mean(-1)[0],
        }


_WATCHING: ContextVar[Observation | None] = ContextVar("lostattn_observation", default=None)


def observe_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """SDPA that an `Observation` may watch (transformers' attention interface)."""
    if (watching := _WATCHING.get()) is not None:
        watching.watch(module.layer_idx, query, key, query.shape[-1] ** -0.5 if scaling is None else scaling)  # type: ignore[arg-type]
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


AttentionInterface.register(NAME, observe_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def observed(model: Any) -> Iterator[None]:
    """Let the decoder of a plain model be watched; afterwards it is as before."""
    parts = {"text_config": model.config.get_text_config(), "vision_config": model.config.vision_config}
    before = {name: part._attn_implementation for name, part in parts.items()}
    model.set_attn_implementation({"text_config": NAME, "vision_config": "sdpa"})
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.no_grad()
def observe(chat: Chat, family: Family, example: Example) -> dict[str, list[list[float]]]:
    """All statistics of one question, each as a table layers x heads."""
    inputs = chat.encode(example.open(), example.question)
    visual = chat.visual(inputs)
    if not bool(visual.any()) or bool(visual[-1]):
        raise LostattnError(f"row {example.row}: the prompt has no image or video followed by text")
    token = _WATCHING.set(Observation(visual, family.two_sided))
    try:
        chat.model(**inputs, use_cache=False, logits_to_keep=1)
        watched = _WATCHING.get()
    finally:
        _WATCHING.reset(token)
    assert watched is not None
    layers = range(len(decoder_of(chat.model.model).layers))
    return {s: [watched.found[i][s].tolist() if i in watched.found else [] for i in layers] for s in STATISTICS}


def calibrate(
    chat: Chat,
    family: Family,
    examples: Sequence[Example],
    data: str,
    partial: Path | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
    weights: str = "",
) -> Calibration:
    """Measure a plain model on examples; memory does not grow with their number.

    Args:
        data: what to call the examples in the file.
        partial: file that takes every finished sample, so that an interrupted run goes on where it stopped; it is used
            only if it was made for the same model and data.
        weights: identity of the model's weights, for the file to be tied to them.

    Raises:
        LostattnError: a patched model, an example that cannot be used, or a disk that refuses.
    """
    if chat.patched:
        raise LostattnError("calibration measures the plain model, and this one is patched: give its original")
    text = chat.model.config.get_text_config()
    done = Progress(partial, fingerprint(chat.model, examples))
    with observed(chat.model):
        for i, example in enumerate(examples):
            if i >= len(done.rows):
                done.add(observe(chat, family, example))
            progress(i + 1, len(examples))
    tables: dict[str, Any] = {
        s: [
            torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
            for rows in zip(*(r[s] for r in done.rows), strict=True)
        ]
        for s in STATISTICS
    }
    return Calibration(
        family.name,
        text.num_hidden_layers,
        text.num_attention_heads,
        len(examples),
        data,
        versions=versions(),
        num_kv_heads=usual_kv_heads(decoder_layers(text)),
        weights=weights,
        **tables,
    )
