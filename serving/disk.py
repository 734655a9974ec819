"""Disk manners: durable writes, safe JSON, and one sentence for every error of the operating system."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError

MAX_JSON_BYTES = 16 * 2**20
AGAIN = "get the checkpoint again from its source"

_MENDS = {
    errno.ENOSPC: "the disk is full: free some space, or choose a destination on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose a destination on another disk",
    errno.EROFS: "the file system is read-only: choose another destination",
    errno.EACCES: "permission denied: change the permissions, or choose a place of your own",
    errno.EPERM: "the operation is not permitted: change the owner or the permissions, or choose a place of your own",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EFBIG: "the file system does not take files this large: choose a destination on another disk",
    errno.EIO: "the disk reports a read or write error: check the disk",
    errno.ENOLCK: "the file system has no locks: choose a destination on a local disk",
    errno.ENOENT: "it does not exist or was removed meanwhile: check the path and run again",
    errno.ENOTDIR: "a part of the path is not a folder: check the path",
}


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn an OSError into a LostattnError: `what`, then the cause with its mend."""
    try:
        yield
    except OSError as error:
        cause = _MENDS.get(error.errno or 0, f"{error.strerror or type(error).__name__}: mend that and run again")
        raise LostattnError(f"{what}: {cause}") from error


def parse_json(text: str | bytes, what: str, pairs_hook: Any = None) -> Any:
    """JSON from untrusted bytes (UTF-8); `what` names it in the message. Raises LostattnError."""
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=pairs_hook)
    except RecursionError:
        raise LostattnError(f"{what} is nested too deeply to be real: {AGAIN}") from None
    except ValueError as error:
        raise LostattnError(f"{what} is not JSON ({error}): {AGAIN}") from None


def read_json(path: Path, what: str) -> Any:
    """The JSON of a small file. Raises LostattnError if it cannot be read, exceeds 16 MB or is not JSON."""
    with disk_errors(f"cannot read {what}"):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise LostattnError(f"{what} is larger than 16 MB: {AGAIN}")
        return parse_json(path.read_bytes(), what)


def write_bytes(path: Path, data: bytes) -> None:
    """Create a new file and push it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write JSON (2-space indent) atomically: a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.lostattn-new")
    temporary.unlink(missing_ok=True)
    try:
        write_bytes(temporary, to_json(value))
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def to_json(value: Any) -> bytes:
    """JSON bytes, 2-space indent, ASCII, newline at the end."""
    return (json.dumps(value, indent=2) + "\n").encode()


def sync_folder(folder: Path) -> None:
    """Push a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """The same for a folder and all folders below it."""
    for current, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(current))
