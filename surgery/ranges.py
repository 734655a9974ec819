"""How users write layers and heads."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from ..patches.errors import LostattnError

# Heads as a user may name them: all, a percentile band, or query heads per layer.
Heads = str | tuple[float, float] | Mapping[int, Iterable[int]]

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_RANGE = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", re.ASCII)
_BAND = re.compile(r"(\d*\.?\d+)\s*-\s*(\d*\.?\d+)", re.ASCII)


def parse_numbers(text: str, what: str) -> list[int]:
    """`1-3,7` as [1, 2, 3, 7]; ascending, no doubles.

    Raises:
        LostattnError: anything else, naming `what`.
    """
    results: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise LostattnError(f"cannot read {what} '{text}': write numbers and ranges such as 1-27 or 0,2,5-7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > 100_000:
            raise LostattnError(
                f"cannot read {what} '{text}': the range {part.strip()} runs backwards or is absurdly long"
            )
        results += range(first, last + 1)
    if len(set(results)) != len(results):
        raise LostattnError(f"{what} '{text}' name the same number twice")
    return sorted(results)


def parse_layers(layers: str | int | Iterable[int] | None, count: int) -> list[int] | None:
    """Layers as a list, None for the family's default.

    Args:
        layers: `all`, `none`, numbers and ranges as text, one number, or numbers.
        count: layers of the model.

    Raises:
        LostattnError: a layer that the model does not have.
    """
    if layers is None:
        return None
    if isinstance(layers, str):
        text = layers.strip().lower()
        if not text:
            raise LostattnError(
                "layers are empty (an unset shell variable?): leave them out for the default, or say none for the empty plan"
            )
        result = list(range(count)) if text == "all" else [] if text == "none" else parse_numbers(text, "layers")
    else:
        result = whole_numbers(layers, "layers")
    for layer in result:
        if not 0 <= layer < count:
            raise LostattnError(f"layer {layer} does not exist: the model has layers 0-{count - 1}")
    return result


def parse_heads(heads: Heads | None) -> Heads | None:
    """Heads in one of three forms: "all", a (low, high) band, or {layer: [heads]}; None for the family's default.

    Raises:
        LostattnError: none of the three.
    """
    if heads is None:
        return None
    if isinstance(heads, str):
        return _parse_text(heads)
    if isinstance(heads, Mapping):
        return _parse_mapping(heads)
    ends = tuple(heads) if isinstance(heads, Iterable) else (heads,)
    try:
        low, high = (_share(x) for x in ends)
    except (TypeError, ValueError, OverflowError) as error:
        raise LostattnError(
            f"cannot read heads {heads!r:.80}: give 'all', a band (low, high) or {{layer: [heads]}}; in YAML put lists such as "
            "'3:0' in quotes"
        ) from error
    if all(isinstance(x, Integral) for x in ends):
        raise _two_meanings(f"{ends[0]}, {ends[1]}", f"({low:.1f}, {high:.1f})")
    return low, high


def _share(value: Any) -> float:
    if isinstance(value, str | bool) or not isinstance(value, Real):
        raise TypeError("no number")
    return float(value) + 0.0


def _two_meanings(text: str, band: str) -> LostattnError:
    """Whole numbers could be meant as a band or as numbers of heads."""
    return LostattnError(
        f"heads {text} could be a percentile band or numbers of heads: write {band} for the band, or lists per layer such as "
        "3:0,1 for heads 0 and 1 of layer 3"
    )


def _parse_text(heads: str) -> Heads:
    text = heads.strip().lower()
    if not text:
        raise LostattnError("heads are empty (an unset shell variable?): leave them out, or write all, a band or lists")
    if text == "all":
        return "all"
    if match := _BAND.fullmatch(text):
        low, high = float(match[1]), float(match[2])
        if match[1].isdigit() and match[2].isdigit():
            raise _two_meanings(f"'{text}'", f"{low:.1f}-{high:.1f}" if high <= 1 else "0.3-0.6, say,")
        return low, high
    if ":" in text:
        return _parse_lists(text)
    raise LostattnError(f"cannot read heads '{heads}': write all, a band such as 0.3-0.6, or lists such as 3:0,1,5;4:2")


def parse_groups(groups: str | Mapping[int, Iterable[int]] | None) -> dict[int, list[int]] | None:
    """KV groups as {layer: [KV heads]}, from that or from text such as `3:0,1;5:1`.

    Raises:
        LostattnError: anything else.
    """
    if groups is None:
        return None
    if isinstance(groups, Mapping):
        return _parse_mapping(groups, "groups")
    if not isinstance(groups, str) or ":" not in groups:
        raise LostattnError(f"cannot read groups {groups!r:.80}: write layer:KV heads, such as 3:0,1;5:1")
    return _parse_lists(groups, "groups")


def _parse_mapping(heads: Mapping[Any, Any], kind: str = "heads") -> dict[int, list[int]]:
    results: dict[int, list[int]] = {}
    for key, value in heads.items():
        (layer,) = whole_numbers(key, "layers")
        if layer in results:
            raise LostattnError(f"{kind} of layer {layer} are given twice")
        what = f"{kind} of layer {layer}"
        results[layer] = parse_numbers(value, what) if isinstance(value, str) else whole_numbers(value, what)
    return results


def _parse_lists(text: str, kind: str = "heads") -> dict[int, list[int]]:
    results: dict[int, list[int]] = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        layer, colon, heads = part.partition(":")
        if not colon or not _NUMBER.fullmatch(layer.strip()):
            raise LostattnError(f"cannot read {kind} '{part}': write layer:{kind}, such as 3:0,1,5")
        if int(layer) in results:
            raise LostattnError(f"{kind} of layer {int(layer)} are given twice")
        results[int(layer)] = parse_numbers(heads, f"{kind} of layer {int(layer)}")
    return results


def whole_numbers(values: Any, what: str) -> list[int]:
    """One whole number or several, of whatever integer type, ascending; digits as text count.

    Raises:
        LostattnError: anything else, or a number twice, naming `what`.
    """
    several = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    results = [_whole_number(value, what) for value in (values if several else [values])]
    if len(set(results)) != len(results):
        raise LostattnError(f"{what} name the same number twice")
    return sorted(results)


def _whole_number(value: Any, what: str) -> int:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value)
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise LostattnError(f"{what} must be whole numbers, not {value!r:.80}")


def format_numbers(numbers: Iterable[int]) -> str:
    """[1, 2, 3, 7] as `1-3,7`; `none` if empty."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts) or "none"
