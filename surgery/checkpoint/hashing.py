"""Digests of files: all bytes, or a fingerprint whose cost does not grow with the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ...serving.progress import bar_of

FULL_LIMIT = 2**30  # bytes of weights up to which all of them are hashed
_BLOCK = 2**16
_SAMPLES = 64
_MIB = 20  # bits
TOLD_FROM = 2**28  # bytes from which a bar is worth its line
_LISTENER: ContextVar[Callable[[int], None] | None] = ContextVar("lostattn_bytes_read", default=None)


def sha256_bytes(data: bytes) -> str:
    """sha256 of bytes in memory, hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a whole file, hex; constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, Sha256).hexdigest()  # type: ignore[arg-type]  # typeshed asks for all of a hash


class Sha256:
    """hashlib's sha256, whose bytes `bytes_told` hears of."""

    def __init__(self) -> None:
        self._digest, self._heard = hashlib.sha256(), _LISTENER.get()

    def update(self, data: Any) -> None:
        """Take bytes in."""
        self._digest.update(data)
        if self._heard is not None:
            self._heard(len(data))

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._digest.hexdigest()


@contextmanager
def bytes_told(what: str, total: int) -> Iterator[None]:
    """A block whose hashed bytes, `total` at most, move a bar of MiB, where a display is installed and they are many."""
    whole, seen = total >> _MIB, 0
    bar = bar_of(f"{what} (MiB)", whole) if total >= TOLD_FROM else None
    if bar is None:
        yield
        return

    def heard(count: int) -> None:
        nonlocal seen
        before, seen = seen, seen + count
        if before >> _MIB != seen >> _MIB:
            bar(min(seen >> _MIB, whole - 1))

    token = _LISTENER.set(heard)
    try:
        yield
    finally:
        _LISTENER.reset(token)
    bar(whole)


def fingerprint(path: Path) -> str:
    """Digest of the size and of 64 blocks of 64 KiB, evenly spread from the first byte to the last.

    It finds exchanged, cut and re-trained files; it does not find a single changed byte between the blocks.
    """
    size = os.path.getsize(path)
    result = hashlib.sha256(f"lostattn-1:{size}:".encode())
    with path.open("rb") as file:
        for offset in sorted({index * max(size - _BLOCK, 0) // (_SAMPLES - 1) for index in range(_SAMPLES)}):
            file.seek(offset)
            result.update(file.read(_BLOCK))
    return result.hexdigest()
