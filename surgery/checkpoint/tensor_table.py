"""The header of a safetensors file, read and checked without loading a tensor."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.disk import AGAIN, disk_errors, parse_json

MAX_HEADER = 100_000_000  # bytes, the format's own limit
# Bits of one element.
DTYPES = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}


@dataclass(frozen=True)
class Tensor:
    """One row: dtype as safetensors writes it, shape, first byte and end within the data part."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class TensorTable:
    """All tensors of one file, in the order of their bytes. `header` is the length of the header with its prefix."""

    tensors: Mapping[str, Tensor]
    header: int

    @property
    def digest(self) -> str:
        """sha256 over names, dtypes, shapes and offsets."""
        rows = [[name, t.dtype, list(t.shape), t.begin, t.end] for name, t in self.tensors.items()]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def read_table(path: Path, name: str) -> TensorTable:
    """Read and check a header; `name` is the file in messages.

    Raises:
        LostattnError: cut short, header too long or not JSON, a name twice, offsets with overlaps or holes or too far.
    """
    with disk_errors(f"cannot read {name}"), path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise LostattnError(f"{name} is cut short ({size} bytes, header of {length}): {AGAIN}")
        if length > MAX_HEADER:
            raise LostattnError(f"{name} has a header of {length} bytes, more than the 100 MB of the format: {AGAIN}")
        raw = parse_json(file.read(length), f"the header of {name}", lambda pairs: _unique(pairs, name))
    if not isinstance(raw, dict):
        raise LostattnError(f"the header of {name} is not a table of tensors: {AGAIN}")
    raw.pop("__metadata__", None)
    rows = [(key, _tensor(key, value, name)) for key, value in raw.items()]
    rows.sort(key=lambda row: (row[1].begin, row[1].end))
    _check_offsets(rows, size - 8 - length, name)
    return TensorTable(dict(rows), 8 + length)


def _unique(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise LostattnError(f"the header of {name} names a tensor or a key twice: {AGAIN}")
    return result


def _tensor(key: str, value: Any, name: str) -> Tensor:
    wrong = LostattnError(f"the header of {name} describes tensor '{key[:80]}' wrongly: {AGAIN}")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not (isinstance(dtype, str) and _naturals(shape) and _naturals(offsets) and len(offsets) == 2):
        raise wrong
    if dtype not in DTYPES:
        raise LostattnError(f"{name} holds tensors of the unknown type '{dtype[:20]}': update lostattn or convert them")
    begin, end = offsets
    if end < begin or (end - begin) * 8 != math.prod(shape) * DTYPES[dtype]:
        raise wrong
    return Tensor(dtype, tuple(shape), begin, end)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) is int and x >= 0 for x in value)


def _check_offsets(rows: list[tuple[str, Tensor]], data: int, name: str) -> None:
    """Tensors must fill the data part without hole or overlap."""
    end = 0
    for key, tensor in rows:
        if tensor.begin != end:
            what = "overlaps another tensor" if tensor.begin < end else "leaves a hole before it"
            raise LostattnError(f"in {name} the tensor '{key[:80]}' {what}: {AGAIN}")
        end = tensor.end
    if end != data:
        raise LostattnError(f"{name} holds {data} bytes of data, its header describes {end}: {AGAIN}")
