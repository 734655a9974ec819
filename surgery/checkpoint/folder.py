"""What a model folder holds: its regular files, with symbolic links followed only where that is safe."""

from __future__ import annotations

import os
import re
import stat
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors
from .belongings import OTHER, PRIVATE, UNKNOWN, file_reason, folder_reason, holds_key, refuse_keys

# Not part of any model: version control, download bookkeeping, bytecode.
SKIPPED_FOLDERS = {".git", ".cache", "__pycache__", ".ipynb_checkpoints"}
SKIPPED_FILES = {".gitattributes", ".gitignore", ".gitkeep", ".DS_Store"}
# Without these no model, no words or no card: one that holds a key is refused instead of left out.
ESSENTIAL = {
    *("config.json", "generation_config.json", "README.md", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
    *("preprocessor_config.json", "processor_config.json", "chat_template.json", "chat_template.jinja"),
    *("special_tokens_map.json", "added_tokens.json", "merges.txt", "vocab.txt"),
}
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ckpt")
# Weights in other forms: a Hub download leaves them out.
OTHER_WEIGHTS = [
    *(f"*{suffix}" for suffix in WEIGHT_SUFFIXES[1:]),
    *("*.pkl", "*.pickle", "*.tflite", "*.mlmodel", "*.npz", "*.onnx_data", "*.bin.index.json"),
    *("original/*", "onnx/*", "openvino/*", "coreml/*", "gguf/*", "consolidated*", "flax_model*", "tf_model*"),
]
MAX_FILES = 10_000


def is_weights(name: str) -> bool:
    """True for files that hold weights: only these are linked instead of copied."""
    return name.lower().endswith(WEIGHT_SUFFIXES)


def list_files(root: Path, ignore: list[str] | None = None) -> tuple[str, ...]:
    """Relative POSIX paths of all files below a resolved folder, sorted.

    Raises:
        LostattnError: a symbolic link to a folder, out of the folder, into the void or in a circle; a device or socket.
    """
    results: list[str] = []
    with disk_errors(f"cannot list {root.name}"):
        for current, folders, files in os.walk(root, onerror=_raise):
            folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
            _refuse_linked(current, folders)
            relative = PurePosixPath(Path(current).relative_to(root))
            names = [str(relative / name) for name in files]
            results += [n for n in names if not any(fnmatch(n, pattern) for pattern in ignore or [])]
            if len(results) > MAX_FILES:
                raise LostattnError(f"'{root.name}' holds more than {MAX_FILES} files: give the model's own folder")
    for name in results:
        real_file(root, name)
    return tuple(sorted(results))


def split_files(root: Path, ignore: list[str] | None = None) -> tuple[tuple[str, ...], dict[str, str]]:
    """What below a resolved folder belongs to a model, and what stays at home with the reason (a key of `belongings.WHY`).

    Folders that stay are named with a slash behind and not looked into.

    Args:
        ignore: patterns of files that are left out without a word, as a download leaves them out.

    Raises:
        LostattnError: as `list_files`, for what belongs to the model; a part of the model that holds a key.
    """
    results: list[str] = []
    left: dict[str, str] = {}
    with disk_errors(f"cannot list {root.name}"):
        for current, folders, files in os.walk(root, onerror=_raise):
            here = PurePosixPath(Path(current).relative_to(root))
            folders[:] = [f for f in sorted(folders) if not _stays(str(here / f), left)]
            _refuse_linked(current, folders)
            names = [str(here / name) for name in sorted(files)]
            results += [n for n in names if not _stays_file(n, left, ignore or [])]
            if len(results) > MAX_FILES:
                raise LostattnError(f"'{root.name}' holds more than {MAX_FILES} files: give the model's own folder")
    return _without_secrets(root, results, left), left


def _stays(folder: str, left: dict[str, str]) -> bool:
    if PurePosixPath(folder).name in SKIPPED_FOLDERS - {".git"}:
        return True
    if (reason := folder_reason(folder)) is not None:
        left[f"{folder}/"] = reason
    return reason is not None


def _stays_file(name: str, left: dict[str, str], ignore: list[str]) -> bool:
    if any(fnmatch(name, pattern) for pattern in ignore) or PurePosixPath(name).name in SKIPPED_FILES:
        return True
    reason = file_reason(name)
    if reason in (None, UNKNOWN) and any(fnmatch(name, pattern) for pattern in OTHER_WEIGHTS):
        reason = OTHER
    if reason is not None:
        left[name] = reason
    return reason is not None


def _without_secrets(root: Path, found: list[str], left: dict[str, str]) -> tuple[str, ...]:
    """The files that may travel: no link to a secret under a harmless name, no text that holds a key."""
    for name, reason in left.items():
        if reason == UNKNOWN and not name.endswith("/"):
            real_file(root, name)  # a pipe or a link that leads out is a mistake, not a leaving
    kept = []
    for name in found:
        target = real_file(root, name)
        behind = target.relative_to(root).as_posix() if target.is_relative_to(root) else name
        if file_reason(behind) == PRIVATE:
            left[name] = PRIVATE
        elif holds_key(target, name):
            if PurePosixPath(name).name in ESSENTIAL:
                refuse_keys([name])
            left[name] = PRIVATE
        else:
            kept.append(name)
    return tuple(sorted(kept))


def _refuse_linked(current: str, folders: list[str]) -> None:
    for folder in folders:
        if os.path.islink(os.path.join(current, folder)):
            raise LostattnError(f"'{folder}' is a symbolic link to a folder: replace it by the folder itself")


def real_file(root: Path, name: str) -> Path:
    """The regular file behind a relative name. Links may stay inside the folder or lead to the Hub cache's blobs."""
    path = root / name
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except FileNotFoundError:
        raise LostattnError(f"'{name}' is missing or a link to nothing: get the checkpoint again") from None
    except (OSError, RuntimeError):  # RuntimeError: a circle of links, before Python 3.13
        raise LostattnError(f"'{name}' is a link that leads nowhere (a circle?): replace it by the file") from None
    if not stat.S_ISREG(mode):
        raise LostattnError(f"'{name}' is not a regular file: remove it from the model folder")
    inside = target.is_relative_to(root)
    if not inside and not (path.is_symlink() and target.parent == blobs_of(root)):
        raise LostattnError(f"'{name}' leads out of the model folder: replace the link by the file itself")
    return target


def blobs_of(root: Path) -> Path | None:
    """The Hub cache's blobs beside a folder `models--x--y/snapshots/<commit>`, else None."""
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        return root.parent.parent / "blobs"
    return None


def cache_origin(root: Path) -> tuple[str, str] | None:
    """(Hub id, commit) of a folder in the Hub cache, else None."""
    if blobs_of(root) is None or not re.fullmatch(r"[0-9a-f]{40}", root.name):
        return None
    return root.parent.parent.name.removeprefix("models--").replace("--", "/"), root.name


def inside_name(name: object) -> bool:
    """True for a relative path that stays inside its folder."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    parts = name.split("/")
    return not name.startswith("/") and all(part not in ("", ".", "..") for part in parts)


def plain_name(name: object) -> bool:
    """True for the name of a file directly in a folder."""
    return inside_name(name) and "/" not in str(name)


def _raise(error: OSError) -> None:
    raise error
