"""Putting one file of the source into the patched folder: shared with the source where the file system can."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors

WEIGHTS = ("auto", "link", "copy")
_FICLONE = 0x40049409  # Linux: share all blocks of one file with another, copy on write
_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_BLOCK = 8 * 2**20


def place(source_file: Path, target_file: Path, how: str, digest: Any = None) -> str:
    """Create target_file, which must not exist, with the content of source_file.

    Args:
        source_file: a regular file; links are followed, so the output never holds one.
        target_file: the new file; its folder exists.
        how: `auto` (reflink, else hard link, else copy), `link` (hard link) or `copy`.
        digest: a hashlib object, fed only if the bytes are really copied.

    Returns:
        What was done: `reflink`, `link` or `copy`.

    Raises:
        LostattnError: with `link`, no hard link is possible; or the disk refuses.
    """
    source = Path(os.path.realpath(source_file))
    with disk_errors(f"cannot write {target_file.name}"):
        if how == "auto" and _reflink(source, target_file):
            return "reflink"
        if how in ("auto", "link") and _hard_link(source, target_file, required=how == "link"):
            return "link"
        _copy(source, target_file, digest)
        return "copy"


def _reflink(source: Path, target: Path) -> bool:
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            os.fsync(new.fileno())
            return True
        except OSError as error:
            target.unlink()
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return False


def _hard_link(source: Path, target: Path, required: bool) -> bool:
    try:
        os.link(source, target)
        return True
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        if required:
            raise LostattnError(
                f"{target.name} cannot be hard-linked ({os.strerror(error.errno)}): choose a destination on the file "
                "system of the source, or say --weights auto or --weights copy"
            ) from error
        return False


def _copy(source: Path, target: Path, digest: Any) -> None:
    buffer = memoryview(bytearray(_BLOCK))
    with source.open("rb", buffering=0) as old, target.open("xb", buffering=0) as new:
        while count := old.readinto(buffer):
            if digest is not None:
                digest.update(buffer[:count])
            _write_all(new.fileno(), buffer[:count])
        os.fsync(new.fileno())


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
