"""Which weights a checkpoint holds, in one digest that does not depend on how they are cut into files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ...serving.disk import disk_errors
from .folder import real_file
from .tensor_table import read_table

_SAMPLE = 256  # bytes that are read at the beginning, the middle and the end of every tensor


def weights_identity(root: Path, files: Iterable[str]) -> str:
    """sha256 over name, type, shape and samples of every tensor; cheap, whatever the size.

    The same weights in other folders or other shards have the same identity. Weights trained further have another, for
    training moves all numbers of a tensor; one changed byte between the samples is not seen.

    Raises:
        LostattnError: a file that cannot be read.
    """
    rows: dict[str, str] = {}
    for name in files:
        path = real_file(root, name)
        table = read_table(path, name)
        with disk_errors(f"cannot read {name}"), path.open("rb") as file:
            for key, tensor in table.tensors.items():
                result = hashlib.sha256(f"{tensor.dtype}{tensor.shape}".encode())
                length = min(_SAMPLE, tensor.end - tensor.begin)
                for place in (tensor.begin, (tensor.begin + tensor.end - length) // 2, tensor.end - length):
                    file.seek(table.header + place)
                    result.update(file.read(length))
                rows[key] = result.hexdigest()
    return hashlib.sha256("\n".join(f"{key} {rows[key]}" for key in sorted(rows)).encode()).hexdigest()
