"""The weights of a checkpoint: which safetensors files they are, and that index and headers tell the same story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.disk import AGAIN, read_json
from .folder import plain_name, real_file
from .tensor_table import Tensor, read_table

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ENTRIES = (".safetensors", ".safetensors.index.json")


@dataclass(frozen=True)
class Weights:
    """The files that hold the model, and what the user should know about them.

    Attributes:
        files: names, sorted; transformers and vLLM both load exactly these.
        unused: root files with weights that neither may load; they have to stay at home.
        notes: sentences.
        tensors: all that is in `files`.
    """

    files: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    tensors: Mapping[str, Tensor]


def check_weights(path: Path, files: tuple[str, ...], explicit: Any = None, pickled: bool = False) -> Weights:
    """Settle which files hold the model, all checked from their headers.

    transformers takes `transformers_weights` of config.json, else model.safetensors, else the index; vLLM takes the index,
    else every *.safetensors of the folder. Files that transformers leaves alone are `unused`, so that vLLM, which is given the
    rest, loads the same; where the index says otherwise, nobody but the user knows which weights are meant.

    Args:
        path: the resolved folder.
        files: what belongs to the model.
        explicit: `transformers_weights` of config.json, a file name that replaces the usual ones.
        pickled: whether the folder holds weights in forms that can run code.

    Raises:
        LostattnError: no safetensors, two sets of weights, a missing or hostile shard name, headers that contradict each other.
    """
    loose = tuple(name for name in files if name.endswith(".safetensors") and "/" not in name)
    if explicit is not None and not (plain_name(explicit) and explicit in files and explicit.endswith(ENTRIES)):
        raise LostattnError("config.json names transformers_weights that are not there: correct or remove it")
    entry = explicit or next((name for name in (SINGLE, INDEX) if name in files), None)
    if entry is None:
        raise _no_safetensors(pickled, loose)
    notes: list[str] = []
    shards = _shards(path, files, entry, notes)
    if INDEX in files and entry != INDEX:
        _refuse_two_sets(entry, set(shards), set(_weight_map(path, INDEX).values()))
    tensors = {
        name: tensor for shard in shards for name, tensor in read_table(real_file(path, shard), shard).tensors.items()
    }
    return Weights(tuple(shards), tuple(sorted(set(loose) - set(shards))), tuple(notes), tensors)


def _refuse_two_sets(entry: str, loaded: set[str], indexed: set[str]) -> None:
    if loaded != indexed:
        others = ", ".join(sorted(indexed)[:3])
        raise LostattnError(
            f"the folder holds two sets of weights: transformers would load {entry}, vLLM the files of {INDEX} ({others}): "
            "remove the set that is not meant, the index with it if it goes"
        )


def _shards(path: Path, files: tuple[str, ...], entry: str, notes: list[str]) -> list[str]:
    if not entry.endswith(".json"):
        read_table(real_file(path, entry), entry)
        return [entry]
    weight_map = _weight_map(path, entry)
    if "metadata" not in read_json(real_file(path, entry), entry):
        notes.append(
            f'{entry} has no metadata, without which transformers does not read it (vLLM does): add "metadata": {{}}'
        )
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
        notes += _disagreements(entry, owner, weight_map)
    return shards


def _disagreements(entry: str, owner: Mapping[str, str], weight_map: Mapping[str, str]) -> list[str]:
    """What an index says wrongly. Both engines read the shards whole, so what a shard holds is loaded, and nothing else."""
    notes = []
    wrong = sorted(name for name in owner if owner[name] != weight_map.get(name))
    if wrong:
        notes.append(
            f"{entry} says nothing or a wrong shard for '{wrong[0][:80]}' ({len(wrong)} tensors): transformers and vLLM read "
            "the shards whole and find it"
        )
    if ghosts := sorted(name for name in weight_map if name not in owner):
        notes.append(f"{entry} names '{str(ghosts[0])[:80]}' ({len(ghosts)} tensors), which no shard holds")
    return notes


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


def _no_safetensors(pickled: bool, loose: tuple[str, ...]) -> LostattnError:
    if loose:
        return LostattnError(
            f"no {SINGLE} or {INDEX} in the source, only {loose[0]}, which transformers does not look for: rename it to "
            f"{SINGLE}, or give the folder its index"
        )
    if pickled:
        return LostattnError(
            "the weights are pickled, which can run code: load and save them once with transformers "
            "(from_pretrained, save_pretrained) to get model.safetensors"
        )
    return LostattnError(f"no {SINGLE} or {INDEX} in the source: give a checkpoint in safetensors form")
