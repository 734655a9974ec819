"""What a plan saves in bytes: the KV cache of a request, and what one decode step reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..patches.errors import LostattnError
from ..patches.plan import Plan
from .cause import cause
from .shape import Shape

# not read in a decode step: the vision tower and what joins it to the decoder
_SEEING = re.compile(
    r"(^|\.)(visual|vision_tower|vision_model|embed_vision|multi_modal_projector|connector|image_newline)(\.|$)"
)
_HEARING = re.compile(r"(^|\.)(audio_tower|embed_audio)(\.|$)")
_EMBEDDING = re.compile(r"(^|\.)embed_tokens\.weight$")
_ROWS = re.compile(r"(^|\.)embed_tokens_per_layer\.weight$")  # one row a step, whatever the output layer is
_EXPERT = re.compile(r"(^|\.)experts\.")  # not the shared ones, which every token passes
_HEAD = re.compile(r"(^|\.)lm_head\.weight$")
_FLOATS = ("F64", "F32", "F16", "BF16")  # held in the dtype that the model is loaded in
_BYTES = {"I64": 8, "I32": 4, "I16": 2}  # quantised weights are held as they are stored, elsewhere in one byte


@dataclass(frozen=True)
class DecodeBytes:
    """Bytes that one decode step of a batch reads: all weights of the decoder once, the KV cache of every request."""

    weights: int
    kv: int

    @property
    def total(self) -> int:
        """Weights and KV cache."""
        return self.weights + self.kv


def saves(plan: Plan | None) -> bool:
    """True if the plan can save anything: static heads, blend 1, all text rows behind the image patched."""
    if plan is None:
        return False
    return not plan.inert and not plan.dynamic and plan.blend == 1.0 and plan.queries != "last"


def is_closed(plan: Plan | None) -> bool:
    """True if no kernel needs a score of a visual key in a patched head: every row patched, no mean over all keys."""
    return plan is not None and saves(plan) and plan.queries == "all" and plan.scores != "prob_rescaled"


def saving_groups(plan: Plan | None) -> int:
    """(layer, KV head) pairs that need no slots for visual tokens."""
    return 0 if plan is None else sum(whole_groups(plan, layer, 1) for layer in plan.layers)


def whole_groups(plan: Plan | None, layer: int, ranks: int) -> int:
    """KV heads of a layer that need no slots for visual tokens on each of `ranks` tensor-parallel ranks, which keep equally
    many: a surplus keeps every token.
    """
    if plan is None or not is_closed(plan):
        return 0
    patched, count = set(plan.heads.get(layer, ())), plan.kv_heads(layer)
    heads, kv = plan.num_heads // ranks, max(count // ranks, 1)
    group = heads // kv
    whole = []
    for rank in range(ranks):
        first = (rank * heads + g * group for g in range(kv))
        whole.append(sum(patched.issuperset(range(h, h + group)) for h in first))
    return min(whole)


def kv_bytes(shape: Shape, plan: Plan | None, text: int, visual: int, ranks: int = 1) -> int:
    """KV cache of a request with one image on one tensor-parallel rank: whole groups keep its text and one summary slot, all
    others every token, or those of a sliding window. States of fixed size, as linear attention keeps them, are not counted.

    Args:
        plan: None for a plain model.
        text, visual: numbers of tokens.
        ranks: that share the heads out; with more of them than KV heads each has a copy of one.
    """
    return sum(layer_bytes(shape, plan, i, text + visual, max(visual - 1, 0), ranks) for i in owning(shape))


def owning(shape: Shape) -> list[int]:
    """Layers that hold their own keys and values, ascending."""
    return [index for index, layer in enumerate(shape.every) if layer.source == index]


def layer_bytes(shape: Shape, plan: Plan | None, index: int, tokens: int, left_out: int, ranks: int = 1) -> int:
    """Cache of one layer that holds its own keys and values, for a request of so many tokens, `left_out` of which whole groups
    do not keep; a request that outgrows the layer's window saves nothing there."""
    layer = shape.every[index]
    inside = layer.window is None or tokens <= layer.window
    slots = max(layer.kv_heads // ranks, min(layer.kv_heads, 1)) * (tokens if inside else layer.window or 0)
    if inside:
        slots -= _groups_left_out(shape, plan, index, ranks) * left_out
    return slots * 2 * layer.head_dim * shape.dtype_bytes


def _groups_left_out(shape: Shape, plan: Plan | None, index: int, ranks: int) -> int:
    """KV heads of a layer that need no slots for visual tokens: whole in every layer that reads them."""
    readers = [i for i, layer in enumerate(shape.every) if layer.source == index]
    if ranks > 1 or len(readers) == 1 or plan is None:
        return min(whole_groups(plan, i, ranks) for i in readers)
    if not whole_groups(plan, index, 1):
        return 0
    return len(set.intersection(*(set(plan.whole_groups(i)) for i in readers)))


def decode_bytes(shape: Shape, plan: Plan | None, weights: int, text: int, visual: int, batch: int) -> DecodeBytes:
    """What one step of `batch` equal requests reads; `weights` are those of `StepWeights.read`."""
    return DecodeBytes(weights, batch * kv_bytes(shape, plan, text, visual))


@dataclass(frozen=True)
class StepWeights:
    """Bytes of the weights of a decoder that a decode step may read.

    Attributes:
        fixed: read in every step.
        experts: of all experts together.
        routing: experts of a layer, and those that one token is sent to.
    """

    fixed: int
    experts: int = 0
    routing: tuple[int, int] = (1, 1)

    def read(self, batch: int) -> int:
        """What a step of `batch` requests reads: of the experts the share that is expected if every token chooses its own
        evenly and without regard to the others, 1 - (1 - active / all)^batch.
        """
        count, active = self.routing
        return self.fixed + round(self.experts * (1 - (1 - active / count) ** batch))


def read_step_weights(folder: Path, shape: Shape) -> StepWeights:
    """Weights of a checkpoint that decode steps read, as `read_weight_bytes` counts them. Raises what that raises."""
    sizes = _read_in_decode(_sizes(folder, shape.dtype_bytes))
    experts = sum(n for name, n in sizes.items() if _EXPERT.search(name)) if shape.experts else 0
    return StepWeights(sum(sizes.values()) - experts, experts, shape.experts or (1, 1))


def read_weight_bytes(folder: Path, dtype_bytes: int) -> int:
    """Bytes of the weights that decode steps read, all experts among them; headers are read, no weights.

    Floating-point weights are held in a dtype of `dtype_bytes`, quantised ones as they are stored. The vision tower rests in
    decode; of the embedding one row is read, unless it is the output layer as well.

    Raises:
        LostattnError: the folder has no safetensors files, or they cannot be read.
    """
    return sum(_read_in_decode(_sizes(folder, dtype_bytes)).values())


def stored_bytes(folder: Path, dtype_bytes: int) -> int:
    """Bytes of all weights as a server holds them; see `read_weight_bytes`."""
    return sum(_sizes(folder, dtype_bytes).values())


def is_seeing(name: str) -> bool:
    """True for weights of the vision tower and of what joins it to the decoder."""
    return _SEEING.search(name) is not None


def is_embedding(name: str) -> bool:
    """True for the decoder's input embedding."""
    return _EMBEDDING.search(name) is not None


def _read_in_decode(sizes: dict[str, int]) -> dict[str, int]:
    tied = not any(_HEAD.search(name) for name in sizes)
    resting = [name for name in sizes if any(part.search(name) for part in (_SEEING, _HEARING, _ROWS))]
    return {n: size for n, size in sizes.items() if n not in resting and (tied or not is_embedding(n))}


def _sizes(folder: Path, dtype_bytes: int) -> dict[str, int]:
    """Bytes of every tensor of a folder."""
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LostattnError(f"{folder} has no safetensors files: the byte model needs their headers")
    for path in files:
        try:
            with safe_open(path, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - no mapping
                    part = tensors.get_slice(name)
                    sizes[name] = _numbers(part.get_shape()) * _held(part.get_dtype(), dtype_bytes)
        except Exception as error:  # safetensors has its own kinds
            raise LostattnError(f"{path.name} in {folder} cannot be read ({cause(error)}): get it again") from error
    return sizes


def _held(dtype: str, dtype_bytes: int) -> int:
    """Bytes of one number of a stored type, as a server holds it."""
    return dtype_bytes if dtype in _FLOATS else _BYTES.get(dtype, 1)


def _numbers(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
