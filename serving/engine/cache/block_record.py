"""How many KV-cache blocks each request held at its most, written to a file by vLLM's engine as the request gives them back.

The engine gives a request's blocks back before it sends the last token, so whoever has the answer finds the line. Works for
plain and patched models alike; nothing is done unless the environment names a file.
"""

from __future__ import annotations

import functools
import json
import os
from typing import Any

from ...blocks_held import VARIABLE
from ..internals import KVCacheManager


def record_blocks() -> None:
    """Note every request's blocks around vLLM's manager of the cache, if the environment asks; may be called again."""
    path = os.environ.get(VARIABLE)
    if not path or getattr(KVCacheManager.free, "_lostattn", False):
        return
    peaks: dict[str, int] = {}
    allocate, free = KVCacheManager.allocate_slots, KVCacheManager.free

    @functools.wraps(allocate)
    def allocate_and_note(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        result = allocate(self, request, *args, **kwargs)
        name = request.request_id
        peaks[name] = max(peaks.get(name, 0), held(self, name))
        return result

    @functools.wraps(free)
    def note_and_free(self: Any, request: Any) -> None:
        blocks = peaks.pop(request.request_id, 0)
        if blocks:
            append_line(path, {"request": request.request_id, "blocks": blocks})
        free(self, request)

    note_and_free._lostattn = True  # type: ignore[attr-defined]
    KVCacheManager.allocate_slots, KVCacheManager.free = allocate_and_note, note_and_free


def held(manager: Any, request_id: str) -> int:
    """Real blocks of a request in all groups; vLLM's null block takes no room."""
    groups = manager.get_blocks(request_id).blocks
    return len({block.block_id for group in groups for block in group if not block.is_null})


def append_line(path: str, row: dict[str, Any]) -> None:
    """One line in one write, so that the engines of a server do not mix theirs."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (json.dumps(row) + "\n").encode())
    finally:
        os.close(descriptor)
