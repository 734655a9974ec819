"""What a server's engine has written about the KV-cache blocks of requests; see `engine/block_record.py`."""

from __future__ import annotations

import json
from pathlib import Path

VARIABLE = "LOSTATTN_BLOCK_RECORD"  # names the file, in the environment of vLLM's processes


def blocks_held(record: Path, answer: str) -> int | None:
    """Most blocks that a request held at once, by the id of its answer; None if the engine wrote nothing about it.

    vLLM puts an ending behind the id that it gives to the client. A request that was preempted has several lines.
    """
    try:
        lines = record.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    rows = [json.loads(line) for line in lines if answer in line]
    return max((row["blocks"] for row in rows if row["request"].startswith(answer)), default=None)
