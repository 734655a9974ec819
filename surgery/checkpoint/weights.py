"""The weights of a checkpoint: which safetensors files they are, and that index and headers tell the same story."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.disk import AGAIN, read_json
from .folder import plain_name, real_file
from .tensor_table import read_table

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def check_weights(path: Path, files: tuple[str, ...], explicit: Any = None) -> tuple[str, ...]:
    """Names of the files that hold the model, all checked from their headers.

    Args:
        path: the resolved folder.
        files: what it holds.
        explicit: `transformers_weights` of config.json, a file name that replaces the usual ones.

    Raises:
        LostattnError: no safetensors, a missing or hostile shard name, headers and index that disagree.
    """
    entries = [name for name in (SINGLE, INDEX) if name in files]
    if explicit is not None:
        if not plain_name(explicit) or explicit not in files or not explicit.endswith((".safetensors", ".index.json")):
            raise LostattnError("config.json names transformers_weights that are not there: correct or remove it")
        entries.append(explicit)
    if not entries:
        raise _no_safetensors(files)
    found = {shard for entry in entries for shard in _shards(path, files, entry)}
    return tuple(sorted(found))


def _shards(path: Path, files: tuple[str, ...], entry: str) -> list[str]:
    if not entry.endswith(".json"):
        read_table(real_file(path, entry), entry)
        return [entry]
    weight_map = _weight_map(path, entry)
    shards = sorted(set(weight_map.values()))
    if missing := [shard for shard in shards if shard not in files]:
        raise LostattnError(f"{entry} names {missing[0]}, which is missing ({len(missing)} shards): {AGAIN}")
    owner: dict[str, str] = {}
    for shard in shards:
        for tensor in read_table(real_file(path, shard), shard).tensors:
            if tensor in owner:
                raise LostattnError(f"the tensor '{tensor[:80]}' is in {owner[tensor]} and in {shard}: {AGAIN}")
            owner[tensor] = shard
    if owner != weight_map:
        wrong = sorted(name for name in owner.keys() | weight_map.keys() if owner.get(name) != weight_map.get(name))
        raise LostattnError(f"{entry} and the shards disagree about '{wrong[0][:80]}' ({len(wrong)} tensors): {AGAIN}")
    return shards


def _weight_map(path: Path, entry: str) -> dict[str, str]:
    """Tensor -> shard, every shard a plain file name."""
    raw = read_json(real_file(path, entry), entry)
    weight_map = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise LostattnError(f"{entry} has no weight_map: {AGAIN}")
    for shard in weight_map.values():
        if not plain_name(shard) or not shard.endswith(".safetensors"):
            raise LostattnError(f"{entry} names the shard {str(shard)[:80]!r}, no plain file name: do not trust it")
    return weight_map


def _no_safetensors(files: tuple[str, ...]) -> LostattnError:
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in files):
        return LostattnError(
            "the weights are pickled, which can run code: load and save them once with transformers "
            "(from_pretrained, save_pretrained) to get model.safetensors"
        )
    return LostattnError(f"no {SINGLE} or {INDEX} in the source: give a checkpoint in safetensors form")
