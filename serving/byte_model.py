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
_SEEING = re.compile(r"(^|\.)(visual|vision_tower|vision_model|multi_modal_projector|connector|image_newline)(\.|$)")
_EMBEDDING = re.compile(r"(^|\.)embed_tokens\.weight$")
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


def saving_groups(plan: Plan | None) -> int:
    """(layer, KV head) pairs that need no slots for visual tokens."""
    return sum(groups_of_rank(plan, 1))


def groups_of_rank(plan: Plan | None, ranks: int) -> list[int]:
    """The same by layer for each of `ranks` tensor-parallel ranks, which keep equally many: a surplus keeps every token.

    `prob_rescaled` needs the mean over all keys, so its visual keys stay needed too.
    """
    if plan is None or not saves(plan) or plan.queries != "all" or plan.scores == "prob_rescaled":
        return []
    heads, kv = plan.num_heads // ranks, max(plan.num_kv_heads // ranks, 1)
    group = heads // kv
    found = []
    for layer in plan.layers:
        patched, whole = set(plan.heads[layer]), []
        for rank in range(ranks):
            first = (rank * heads + g * group for g in range(kv))
            whole.append(sum(patched.issuperset(range(h, h + group)) for h in first))
        found.append(min(whole))
    return found


def token_bytes(shape: Shape) -> int:
    """Key and value of one token in one KV head."""
    return 2 * shape.head_dim * shape.dtype_bytes


def is_seeing(name: str) -> bool:
    """True for weights of the vision tower and of what joins it to the decoder."""
    return _SEEING.search(name) is not None


def is_embedding(name: str) -> bool:
    """True for the decoder's input embedding."""
    return _EMBEDDING.search(name) is not None


def kv_bytes(shape: Shape, plan: Plan | None, text: int, visual: int) -> int:
    """KV cache of a request with one image: whole groups keep its text and one summary slot, all others every token.

    Args:
        plan: None for a plain model.
        text, visual: numbers of tokens.
    """
    whole = shape.layers * shape.kv_heads * (text + visual)
    return (whole - saving_groups(plan) * max(visual - 1, 0)) * token_bytes(shape)


def decode_bytes(shape: Shape, plan: Plan | None, weights: int, text: int, visual: int, batch: int) -> DecodeBytes:
    """What one step of `batch` equal requests reads; `weights` are those of `read_weight_bytes`."""
    return DecodeBytes(weights, batch * kv_bytes(shape, plan, text, visual))


def read_weight_bytes(folder: Path, dtype_bytes: int) -> int:
    """Bytes of the weights that a decode step reads; headers are read, no weights.

    Floating-point weights are held in a dtype of `dtype_bytes`, quantised ones as they are stored. The vision tower rests in
    decode; of the embedding one row is read, unless it is the output layer as well.

    Raises:
        LostattnError: the folder has no safetensors files, or they cannot be read.
    """
    sizes = _sizes(folder, dtype_bytes)
    tied = not any(_HEAD.search(name) for name in sizes)
    return sum(n for name, n in sizes.items() if not is_seeing(name) and (tied or not is_embedding(name)))


def stored_bytes(folder: Path, dtype_bytes: int) -> int:
    """Bytes of all weights as a server holds them; see `read_weight_bytes`."""
    return sum(_sizes(folder, dtype_bytes).values())


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
