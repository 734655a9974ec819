"""Whether config.json describes the weights beside it: transformers' own loading, run over shapes instead of numbers.

The plain model is built on the meta device, where nothing is allocated, and given the headers' tensors through the key renames
and conversions that transformers would apply. What it then misses, does not know or finds of another shape is one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging

from ..patches.compat import NEWEST_TESTED, installed
from ..patches.errors import LostattnError
from ..patches.family import Family, get_family
from ..serving.cause import cause
from ..serving.shape import refuse_absurd
from .checkpoint.loadable import packed_bits
from .checkpoint.tensor_table import Tensor

MEND = "correct config.json, or get the checkpoint again from its source"
_NUMBERED = re.compile(r"^(.*?)\.(\d{1,9})\.")
_SEEING = re.compile(r"(^|\.)(visual|vision_tower|vision_model|vision|multi_modal_projector|connector)(\.|$)")
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_UNKNOWN = (0, 0, 0, 0, 0, 0, 0)  # shape of a weight that is stored in a form whose size tells nothing
_PACKED = (".qweight", ".weight_packed")
_SPARE_LAYERS = 8  # so many more than the weights hold are still built, to name what is missing


@dataclass(frozen=True)
class Fit:
    """How a config fits its weights; names as the model calls them.

    Attributes:
        missing: weights that the model needs and the files lack.
        unknown: weights in the files that the model has no place for.
        other: name -> (shape in the files, shape by the config).
    """

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    other: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def check_fit(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Hold a config against the weights' headers; nothing is loaded.

    Args:
        config: parsed config.json, plain or patched.
        tensors: all weights of the checkpoint.

    Raises:
        LostattnError: another number of layers, other sizes, weights that are missing or that the model does not know; or a
            config that no model can be built from.
    """
    family = get_family(str(config.get("model_type")))
    refuse_absurd(config)
    parsed = _parsed(family, config)
    text = parsed.get_text_config()
    _check_layers(text.num_hidden_layers, tensors)
    _check_rope(text)
    _check_effort(parsed.to_dict(), tensors)
    fit = measure_fit(family, parsed, tensors, packed_bits(config))
    _refuse(fit, parsed)


def measure_fit(family: Family, parsed: Any, tensors: Mapping[str, Tensor], bits: int | None) -> Fit:
    """Load shapes into the plain model on the meta device; `bits` as of `packed_bits`."""
    quantised = bits is not None
    try:
        with torch.device("meta"), _quiet():
            model = family.plain_class(parsed)
            info = _load(model, {name: _meta(shape, t) for name, (shape, t) in _plain(tensors, bits)})
    except (ImportError, AttributeError, TypeError) as error:
        if installed() > NEWEST_TESTED:  # it loads by other functions: what cannot be compared is not refused
            return Fit((), (), {})
        raise LostattnError(f"no model can be built from config.json ({cause(error)}): {MEND}") from error
    except (
        Exception
    ) as error:  # sizes that no tensor can have, heads that do not divide: of torch's and transformers' kinds
        raise LostattnError(f"no model can be built from config.json ({cause(error)}): {MEND}") from error
    other = {name: (tuple(found), tuple(wanted)) for name, found, wanted in info.mismatched_keys}
    if quantised:
        packed = {_tail(name.rpartition(".")[0]) for name in tensors if name.endswith(_PACKED)}
        other = {n: pair for n, pair in other.items() if not _cannot_tell(*pair, _tail(n.rpartition(".")[0]) in packed)}
    unknown = [name for name in info.unexpected_keys if not quantised or name.endswith((".weight", ".bias"))]
    return Fit(tuple(sorted(info.missing_keys)), tuple(sorted(unknown)), dict(sorted(other.items())))


def _load(model: Any, state: dict[str, torch.Tensor]) -> Any:
    """transformers' loading of a state dict, as `from_pretrained` does it, and the ties of the model."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    how = LoadStateDictConfig(device_map={"": "meta"}, weight_mapping=get_model_conversion_mapping(model))
    info, _ = convert_and_load_state_dict_in_model(
        model=model, state_dict=state, load_config=how, disk_offload_index=None
    )
    model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
    model._adjust_missing_and_unexpected_keys(info)
    return info


def _plain(tensors: Mapping[str, Tensor], bits: int | None) -> Iterator[tuple[str, tuple[tuple[int, ...], Tensor]]]:
    """The weights that the stored tensors stand for: packed ones under their plain name, with their plain shape."""
    for name, tensor in tensors.items():
        stem = next((name.removesuffix(end) for end in _PACKED if name.endswith(end)), None)
        if bits is None:
            yield name, (tensor.shape, tensor)
        elif stem is not None:
            yield f"{stem}.weight", (_unpacked(name, tensor, stem, tensors, bits), tensor)
        elif name.endswith((".weight", ".bias")):
            hidden = len(tensor.shape) == 2 and 1 in tensor.shape and tensor.dtype == "U8"  # bitsandbytes: one long row
            yield name, (_UNKNOWN if hidden else tensor.shape, tensor)
        elif not _is_helper(name):
            yield name, (tensor.shape, tensor)


def _unpacked(name: str, tensor: Tensor, stem: str, tensors: Mapping[str, Tensor], bits: int) -> tuple[int, ...]:
    """Shape (out, in) of a packed matrix; the padding of the last number is left in."""
    if len(tensor.shape) != 2:
        return _UNKNOWN
    rows, columns = tensor.shape
    if name.endswith(".weight_packed"):
        return (
            (rows, columns * ({"I32": 32, "U8": 8}[tensor.dtype] // bits))
            if bits and tensor.dtype in ("I32", "U8")
            else _UNKNOWN
        )
    inputs, scales = tensors.get(f"{stem}.g_idx"), tensors.get(f"{stem}.scales")
    if inputs is not None:  # GPTQ packs inputs, and lists them
        return (columns, *inputs.shape)
    return (scales.shape[-1], rows) if scales is not None and len(scales.shape) == 2 else _UNKNOWN  # AWQ packs outputs


def _is_helper(name: str) -> bool:
    """Scales and the like of quantised weights."""
    leaf = name.rpartition(".")[2]
    return (
        leaf in ("qzeros", "scales", "g_idx", "SCB", "absmax", "quant_map")
        or ".weight." in name
        or leaf.startswith(("weight_", "input_", "output_", "k_scale", "v_scale", "q_scale", "nested_", "quant_state"))
    )


def _meta(shape: tuple[int, ...], tensor: Tensor) -> torch.Tensor:
    return torch.empty(shape, dtype=_DTYPES.get(tensor.dtype, torch.float32), device="meta")


def _cannot_tell(found: tuple[int, ...], wanted: tuple[int, ...], packed: bool) -> bool:
    """True if a stored form hides the size, or if the difference may be the padding of the last packed number."""
    if found == _UNKNOWN:
        return True
    return packed and len(found) == len(wanted) and all(0 <= f - w < 8 for f, w in zip(found, wanted, strict=True))


def _tail(module: str) -> str:
    """The end of a module's name, which no rename changes: layers.3.self_attn.q_proj."""
    return ".".join(module.split(".")[-4:])


def _parsed(family: Family, config: Mapping[str, Any]) -> Any:
    left = ("model_type", "architectures", "auto_map", "sap", "quantization_config")
    kept = {k: v for k, v in config.items() if k not in left}
    if isinstance(kept.get("text_config"), Mapping):
        kept["text_config"] = {k: v for k, v in kept["text_config"].items() if k != "quantization_config"}
    try:
        return family.plain_class.config_class.from_dict(kept)
    except Exception as error:  # transformers raises whatever its validators raise
        raise LostattnError(f"config.json cannot be read as {family.name} ({cause(error)}): {MEND}") from error


def _check_layers(layers: int, tensors: Iterable[str]) -> None:
    """The decoder's layers first: the commonest lie, and the one that could take hours to build."""
    result = _layers_of(name for name in tensors if not _SEEING.search(name.partition(".layers.")[0]))
    if result and result != layers:
        raise LostattnError(
            f"config.json says that the decoder has {layers} layers, the weights hold {result}: {MEND} (text_config, "
            "num_hidden_layers)"
        )


def _layers_of(names: Iterable[str]) -> int:
    """The largest number of layers under one prefix that ends in `layers`."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        match = re.match(r"^(.*?layers)\.(\d{1,9})\.", name)
        if match is not None:
            numbers.setdefault(match[1], set()).add(int(match[2]))
    return max((len(found) for found in numbers.values()), default=0)


def _check_rope(text: Any) -> None:
    """Rotary sections of a multimodal decoder share out half of a head: the one place where heads alone can be counted."""
    rope = getattr(text, "rope_parameters", None) or {}
    sections = rope.get("mrope_section") if isinstance(rope, Mapping) else None
    if not isinstance(sections, list | tuple) or not all(isinstance(n, int) for n in sections):
        return
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    turned = int(size * float(rope.get("partial_rotary_factor") or 1.0))
    if 2 * sum(sections) != turned:
        raise LostattnError(
            f"config.json says that {text.num_attention_heads} heads have {size} numbers each, its mrope_section is made for "
            f"{2 * sum(sections)}: {MEND}"
        )


def _check_effort(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse to build what would take long and is plainly another model."""
    blocks = {match[0] for name in tensors if (match := _NUMBERED.match(name))}
    numbers = list(_numbers(config))
    if wrong := [(name, n) for name, n in numbers if "num" in name and "heads" in name and n < 1]:
        raise LostattnError(f"config.json says {wrong[0][0]} {wrong[0][1]}, which no model has: {MEND}")
    layers = [n for name, n in numbers if name in ("num_hidden_layers", "depth", "num_layers")]
    if sum(layers) > 2 * len(blocks) + _SPARE_LAYERS:
        raise LostattnError(
            f"config.json says {max(layers)} layers, far more than the weights hold ({len(blocks)} in all): {MEND}"
        )


def _numbers(value: Any) -> Iterator[tuple[str, int]]:
    for key, item in value.items() if isinstance(value, Mapping) else ():
        if isinstance(item, Mapping):
            yield from _numbers(item)
        elif type(item) is int:
            yield str(key), item


def _refuse(fit: Fit, parsed: Any) -> None:
    if fit.other:
        name, (shape, wanted) = next(iter(fit.other.items()))
        raise LostattnError(
            f"config.json does not describe the weights: {name} is {_size(shape)} in the files and {_size(wanted)} by the "
            f"config ({len(fit.other)} tensors differ): {MEND}"
        )
    if fit.missing:
        names, tied = fit.missing, _tied(parsed)
        hint = (
            " (tie_word_embeddings is false: set it to true if the output layer is the embedding)"
            if (not tied and any(name.endswith("lm_head.weight") for name in names))
            else ""
        )
        raise LostattnError(f"the weights lack {names[0]} ({len(names)} tensors), which the model needs{hint}: {MEND}")
    if fit.unknown:
        raise LostattnError(
            f"the weights hold {fit.unknown[0][:120]} ({len(fit.unknown)} tensors), for which a model of this config has no "
            f"place: {MEND}"
        )


def _tied(parsed: Any) -> bool:
    return bool(getattr(parsed, "tie_word_embeddings", False))


def _size(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for a loading that loads nothing."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
