"""What a plan saves by arithmetic: attention FLOPs of the decoder and bytes of the KV cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..patches.plan import Plan
from ..serving.attention_flops import attention_flops, attention_flops_saved
from ..serving.byte_model import StepWeights, decode_bytes, kv_bytes
from ..serving.shape import Shape

TEXT_BEFORE, TEXT_AFTER = 32, 96
VISUAL = (1024, 4096, 16384)
BATCHES = (1, 32)


@dataclass(frozen=True)
class Prediction:
    """For one request: text, one image of `visual_tokens`, text.

    FLOPs count the two products of the decoder's attention (scores, values) in prefill, causal half only, also where
    image tokens see each other both ways (`Family.both_ways`); nothing else of the model. KV bytes count a whole cache after
    prefill; they are saved where the serving engine leaves visual slots of whole groups out, not in transformers' cache.
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
    text = TEXT_BEFORE + TEXT_AFTER
    tokens = text + visual
    flops, kv = attention_flops(shape, tokens), kv_bytes(shape, None, text, visual)
    saved = attention_flops_saved(shape, plan, tokens, visual, TEXT_AFTER)
    return Prediction(visual, flops, saved, kv, kv - kv_bytes(shape, plan, text, visual))


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
    plan: Plan, shape: Shape, weights: StepWeights, visual: tuple[int, ...] = VISUAL, batches: tuple[int, ...] = BATCHES
) -> list[DecodePrediction]:
    """Decode byte model of a plan; `weights` are those of `byte_model.read_step_weights`."""
    text = TEXT_BEFORE + TEXT_AFTER
    results = []
    for n in visual:
        for batch in batches:
            before = decode_bytes(shape, None, weights.read(batch), text, n, batch)
            after = decode_bytes(shape, plan, weights.read(batch), text, n, batch)
            results.append(DecodePrediction(n, batch, before.weights, before.kv, before.kv - after.kv))
    return results
