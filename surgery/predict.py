"""What a plan saves by arithmetic: attention FLOPs of the decoder and bytes of the KV cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..patches.decoder import DecoderLayer
from ..patches.family import get_family
from ..patches.plan import Plan
from ..serving.byte_model import StepWeights, decode_bytes, kv_bytes, saves
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
    flops = sum(_attention_flops(shape.heads, layer, keys) for layer in shape.every)
    text = TEXT_BEFORE + TEXT_AFTER
    kv = kv_bytes(shape, None, text, visual)
    if not saves(plan):
        return Prediction(visual, flops, 0.0, kv, 0)
    saved = sum(_saved_flops(plan, layer, shape.every[layer], visual, keys) for layer in plan.layers)
    if not get_family(plan.family).plain_causal:
        saved = 0.0
    kv_saved = kv - kv_bytes(shape, plan, text, visual)
    return Prediction(visual, flops, max(saved, 0.0), kv, kv_saved)


def _attention_flops(heads: int, layer: DecoderLayer, keys: int) -> float:
    """Multiply and add, scores and values, of one layer's prefill."""
    seen = keys if layer.window is None else min(layer.window, keys)
    pairs = seen * (seen + 1) / 2 + (keys - seen) * seen
    return heads * 4 * layer.head_dim * pairs if layer.attends else 0.0


def _saved_flops(plan: Plan, index: int, layer: DecoderLayer, visual: int, keys: int) -> float:
    """Of one patched layer; none where the request outgrows its window, for then scores are made as ever."""
    if layer.window is not None and keys > layer.window:
        return 0.0
    heads, size = plan.heads[index], plan.num_heads // layer.kv_heads
    pairs = (visual * (visual + 1) / 2 if plan.queries == "all" else 0) + TEXT_AFTER * visual
    prefix = (
        len({h // size for h in heads}) * visual * 2 * layer.head_dim
    )  # running sum of the values, once per KV head
    return len(heads) * pairs * 4 * layer.head_dim - prefix


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
    found = []
    for n in visual:
        for batch in batches:
            before = decode_bytes(shape, None, weights.read(batch), text, n, batch)
            after = decode_bytes(shape, plan, weights.read(batch), text, n, batch)
            found.append(DecodePrediction(n, batch, before.weights, before.kv, before.kv - after.kv))
    return found
