"""The checkpoint to be patched: a local folder or a Hub id, checked before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors, read_json
from .belongings import UNUSED, is_adapter, left_out_notes
from .folder import OTHER_WEIGHTS, cache_origin, real_file, split_files
from .hub_errors import hub_errors
from .identity import weights_identity
from .loadable import refuse_unloadable
from .manifest import MANIFEST
from .runtime import ENTRY
from .tensor_table import Tensor
from .weights import check_weights

_HUB_ID = re.compile(r"(?!\.\.?/)(?:[\w.-]+/[\w.-]+|[\w-][\w.-]*)", re.ASCII)
_CODE_CONFIGS = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Source:
    """A checked model folder.

    Attributes:
        path: the folder, resolved.
        repo, revision: Hub id and commit, None for a folder that is not from the Hub.
        config: the parsed config.json.
        files: relative POSIX paths of what belongs to the checkpoint, sorted.
        weights: the safetensors files among them that hold the model.
        left_out: what of the folder stays at home -> why (a key of `belongings.WHY`).
        notes: what the user should know about it.
        tensors: the tables of all weights.
    """

    path: Path
    repo: str | None
    revision: str | None
    config: Mapping[str, Any]
    files: tuple[str, ...]
    weights: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """What to call it: Hub id or folder name, never a path."""
        return self.repo or self.path.name

    @property
    def identity(self) -> str:
        """Which weights these are, wherever they lie."""
        return weights_identity(self.path, self.weights)

    def real(self, name: str) -> Path:
        """The regular file behind one of `files`, links followed."""
        return real_file(self.path, name)


def resolve_source(src: str | Path, revision: str | None = None, *, allow_code: bool = False) -> Source:
    """Find and check a checkpoint; weights are not loaded.

    Args:
        src: a local folder, or a Hub id such as `org/name` (downloaded, or taken from the cache with HF_HUB_OFFLINE=1).
        revision: branch, tag or commit of the Hub id.
        allow_code: accept checkpoints that bring Python files or `auto_map`; they are copied, not run.

    Raises:
        LostattnError: whatever is wrong with the checkpoint, with its mend.
    """
    path, origin = _locate(src, revision)
    files, left_out = split_files(path, OTHER_WEIGHTS if origin is not None else None)
    _refuse_adapter(path, (*files, *left_out))
    config = _read_config(path, files)
    _refuse_patched(config, files)
    _refuse_collisions(files)
    if not allow_code:
        _refuse_code(path, files, config)
    pickled = any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in left_out)
    weights = check_weights(path, files, config.get("transformers_weights"), pickled)
    refuse_unloadable(config, weights.tensors)
    left_out |= dict.fromkeys(weights.unused, UNUSED)
    repo, commit = origin or (None, None)
    return Source(
        path,
        repo,
        commit,
        config,
        tuple(name for name in files if name not in left_out),
        weights.files,
        left_out,
        (*weights.notes, *left_out_notes(left_out)),
        weights.tensors,
    )


def local_folder(src: str | Path, revision: str | None = None) -> Path | None:
    """The folder that a source is, resolved; None for a Hub id. LostattnError if it is neither."""
    if not str(src).strip():
        raise LostattnError("the source is empty: give a folder, or a Hub id such as org/name")
    if revision is not None and not revision.strip():
        raise LostattnError(
            "--revision is empty (an unset shell variable?): leave it out, or name a branch, tag or commit"
        )
    folder = Path(src).expanduser()
    with disk_errors(f"cannot open {src}"):
        if folder.is_dir():
            if revision is not None:
                raise LostattnError("--revision belongs to Hub ids, the source is a local folder: leave it out")
            return folder.resolve()
        if folder.exists():
            raise LostattnError(f"{src} is a file: give the folder that holds config.json and the weights")
    if isinstance(src, Path) or not _HUB_ID.fullmatch(src):
        raise LostattnError(f"{src} does not exist: give an existing folder, or a Hub id such as org/name")
    return None


def _locate(src: str | Path, revision: str | None) -> tuple[Path, tuple[str, str] | None]:
    """The folder, resolved, and where on the Hub it comes from."""
    folder = local_folder(src, revision)
    return _download(str(src), revision) if folder is None else (folder, cache_origin(folder))


def _download(repo: str, revision: str | None) -> tuple[Path, tuple[str, str]]:
    from huggingface_hub import snapshot_download

    with hub_errors(repo, revision):
        path = Path(snapshot_download(repo, revision=revision, ignore_patterns=OTHER_WEIGHTS)).resolve()
    return path, (repo, path.name)


def _refuse_adapter(path: Path, names: Iterable[str]) -> None:
    """Adapters directly in the folder: transformers applies them to the weights beside them where peft is there, vLLM never."""
    results = sorted(name for name in names if "/" not in name and is_adapter(name))
    if not results:
        return
    if not (path / "config.json").is_file():
        raise LostattnError(
            f"{path.name} is an adapter alone ({results[0]}): merge it into its base model (peft: merge_and_unload, then "
            "save_pretrained into a new folder) and patch that"
        )
    raise LostattnError(
        f"{', '.join(results)} lies beside full weights: transformers would apply the adapter to them, vLLM would not; if it is "
        "merged into them already, move it out of the folder, else merge it first (peft: merge_and_unload)"
    )


def _read_config(path: Path, files: tuple[str, ...]) -> dict[str, Any]:
    if "config.json" not in files:
        raise LostattnError(f"{path.name} has no config.json: give the folder of a transformers checkpoint")
    config = read_json(real_file(path, "config.json"), "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise LostattnError("config.json names no model_type: give the folder of a transformers checkpoint")
    return config


def _refuse_patched(config: Mapping[str, Any], files: tuple[str, ...]) -> None:
    if config["model_type"].startswith("sap_") or "sap" in config or MANIFEST in files:
        raise LostattnError("the source is already patched: patch its original, which 'lostattn unpatch' gives back")


def _refuse_collisions(files: tuple[str, ...]) -> None:
    if ENTRY in files:
        raise LostattnError(f"the source has a file that lostattn adds itself ({ENTRY}): rename it")


def _refuse_code(path: Path, files: tuple[str, ...], config: Mapping[str, Any]) -> None:
    if code := [name for name in files if name.endswith(".py")]:
        raise LostattnError(f"the source brings Python code ({code[0]}): look at it, then say --allow-code")
    parts = {"config.json": config}
    parts |= {name: read_json(real_file(path, name), name) for name in _CODE_CONFIGS if name in files}
    for name, part in parts.items():
        if _has_auto_map(part):
            raise LostattnError(f"{name} asks for remote code (auto_map): look at it, then say --allow-code")


def _has_auto_map(value: Any) -> bool:
    """True if `auto_map` is a key at any depth."""
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict) and "auto_map" in item:
            return True
        waiting.extend(_children(item))
    return False


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
