"""Kinds of the values in a plan that comes from anywhere: every one is checked, and named if it is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import LostattnError

REQUIRED = ("family", "mode", "preset", "scores", "queries", "num_layers", "num_heads", "num_kv_heads", "heads")


def check_fields(values: Mapping[str, Any], known: set[str]) -> None:
    """Keys and kinds of a plan's JSON; whether the values make sense is for `Plan` to say.

    Raises:
        LostattnError: an unknown or missing key, a value of the wrong kind.
    """
    if unknown := sorted(str(key) for key in values if key not in known):
        raise LostattnError(f"the plan has unknown keys: {', '.join(unknown)}")
    if missing := [key for key in REQUIRED if key not in values]:
        raise LostattnError(f"the plan lacks {', '.join(missing)}")
    for name, value in values.items():
        wanted, right = _KINDS[name]
        if not right(value):
            raise LostattnError(f"the plan's {name} must be {wanted}, not {value!r:.80}")


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _whole(value: Any) -> bool:
    return type(value) is int


def _number(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 2**63)


def _list_of(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(right, value))


def _per_layer(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Layer numbers as keys, written in one way only, so that none can stand there twice."""
    inner = _list_of(right)
    return lambda value: isinstance(value, dict) and all(_is_layer(k) and inner(v) for k, v in value.items())


def _is_layer(key: Any) -> bool:
    return isinstance(key, str) and re.fullmatch(r"0|[1-9][0-9]{0,5}", key) is not None


def _by_layer(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_layer(k) and _whole(v) for k, v in value.items())


def _options(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


def _band(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and {"low", "high"} <= set(value) <= {"low", "high", "rank_by"}
        and _number(value["low"])
        and _number(value["high"])
        and isinstance(value.get("rank_by", "mass"), str)
    )


def _pixels(value: Any) -> bool:
    if value is None:
        return True
    three = _list_of(_number)
    return (
        isinstance(value, dict)
        and set(value) == {"mean", "std", "rescale"}
        and three(value["mean"])
        and three(value["std"])
        and _number(value["rescale"])
    )


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("family", "mode", "preset", "scores", "queries"), ("text", _text)),
    **dict.fromkeys(("num_layers", "num_heads", "num_kv_heads", "seed"), ("a whole number", _whole)),
    **dict.fromkeys(("blend", "temperature"), ("a finite number", _number)),
    "heads": ("layer numbers with lists of whole numbers", _per_layer(_whole)),
    "levels": ("layer numbers with lists of finite numbers", _per_layer(_number)),
    "features": ("a list of names", _list_of(_text)),
    "weights": ("layer numbers with lists of lists of finite numbers", _per_layer(_list_of(_number))),
    "layer_kv_heads": ("layer numbers with whole numbers", _by_layer),
    "options": ("names with text", _options),
    "band": ("low and high as numbers, rank_by as text", _band),
    **dict.fromkeys(
        ("pixels", "video_pixels"), ("mean and std as lists of finite numbers, rescale as a number", _pixels)
    ),
}
