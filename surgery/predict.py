"""What a plan saves by arithmetic: attention FLOPs of the decoder and bytes of the KV cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..patches.family import get_family
from ..patches.plan import Plan
from ..serving.byte_model import decode_bytes, kv_bytes, saves
from ..serving.shape import Shape

TEXT_BEFORE, TEXT_AFTER = 32, 96
VISUAL = (1024, 4096, 16384)
BATCHES = (1, 32)


@dataclass(frozen=True)
class Prediction:
    """For one request: text, one image of `visual_tokens`, text.

    FLOPs count the two products of the decoder's attention (scores, values) in prefill, causal half only; nothing else
    of the model; none are saved in families whose image tokens see forward (`Family.plain_causal`). KV bytes count a
    whole cache after prefill; they are saved where the serving engine leaves visual slots of whole groups out, not in
    transformers' cache.
    """

    visual_tokens: int
    attention_flops: float
    attention_flops_saved: float
    kv_bytes: int
    kv_bytes_saved: int

    def as_row(self) -> dict[str, Any]:
        """JSON form with shares next to the amounts."""
        return asdict(self) | {
            "attention_flops_saved_share": self.attention_flops_saved / self.attention_flops,
            "kv_bytes_saved_share": self.kv_bytes_saved / self.kv_bytes,
        }


def predict(plan: Plan, shape: Shape, visual: tuple[int, ...] = VISUAL) -> list[Prediction]:
    """Savings of a plan at several image sizes."""
    return [_predict(plan, shape, n) for n in visual]


def _predict(plan: Plan, shape: Shape, visual: int) -> Prediction:
    keys = TEXT_BEFORE + visual + TEXT_AFTER
    per_pair = 4 * shape.head_dim  # multiply and add, scores and values
    flops = shape.layers * shape.heads * per_pair * keys * (keys + 1) / 2
    text = TEXT_BEFORE + TEXT_AFTER
    kv = kv_bytes(shape, None, text, visual)
    if not saves(plan):
        return Prediction(visual, flops, 0.0, kv, 0)
    rows_inside = visual * (visual + 1) / 2 if plan.queries == "all" else 0
    pairs = rows_inside + TEXT_AFTER * visual
    heads = sum(len(h) for h in plan.heads.values())
    touched = sum(len({h // (shape.heads // shape.kv_heads) for h in hs}) for hs in plan.heads.values())
    prefix = touched * visual * 2 * shape.head_dim  # running sum of the values, once per KV head
    saved = heads * pairs * per_pair - prefix
    if not get_family(plan.family).plain_causal:
        saved = 0.0
    kv_saved = kv - kv_bytes(shape, plan, text, visual)
    return Prediction(visual, flops, max(saved, 0.0), kv, kv_saved)


@dataclass(frozen=True)
class DecodePrediction:
    """Bytes that one decode step reads for `batch` equal requests, each with one image of `visual_tokens`.

    Where memory is what a step waits for, as on a GPU at small and middle batches, its time follows them.
    """

    visual_tokens: int
    batch: int
    weight_bytes: int
    kv_bytes: int
    kv_bytes_saved: int

    @property
    def saved_share(self) -> float:
        """Share of all bytes that need not be read."""
        return self.kv_bytes_saved / (self.weight_bytes + self.kv_bytes)

    def as_row(self) -> dict[str, Any]:
        """JSON form with the share next to the amounts."""
        return asdict(self) | {"saved_share": self.saved_share}


def predict_decode(
    plan: Plan, shape: Shape, weights: int, visual: tuple[int, ...] = VISUAL, batches: tuple[int, ...] = BATCHES
) -> list[DecodePrediction]:
    """Decode byte model of a plan; `weights` are those of `byte_model.read_weight_bytes`."""
    text = TEXT_BEFORE + TEXT_AFTER
    found = []
    for n in visual:
        for batch in batches:
            before = decode_bytes(shape, None, weights, text, n, batch)
            after = decode_bytes(shape, plan, weights, text, n, batch)
            found.append(DecodePrediction(n, batch, weights, before.kv, before.kv - after.kv))
    return found
