"""What a server's engine has written about its own host time, step by step; see `engine/host_record.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

VARIABLE = "LOSTATTN_HOST_RECORD"  # names the file, in the environment of vLLM's processes


@dataclass(frozen=True)
class HostTimes:
    """Medians over decode steps, in ms.

    Attributes:
        schedule: of vLLM's `schedule()`. metadata: of building the attention metadata of all KV-cache groups.
        steps: how many steps these are medians of.
    """

    schedule: float
    metadata: float
    steps: int

    @property
    def host(self) -> float:
        """Both."""
        return self.schedule + self.metadata


def written(record: Path) -> int:
    """Bytes of the record so far, to be read from later on."""
    try:
        return record.stat().st_size
    except OSError:
        return 0


def host_times(record: Path, start: int, batch: int) -> HostTimes | None:
    """Of the steps in which exactly `batch` requests decode one token each, written behind byte `start`.

    None if there were none, as when the KV pool is too small for so many requests, or the engine wrote nothing.
    """
    try:
        with record.open("rb") as file:
            file.seek(start)
            lines = file.read().decode("utf-8").splitlines()
    except OSError:
        return None
    results: dict[str, list[float]] = {"schedule": [], "metadata": []}
    for row in map(json.loads, lines):
        if row["requests"] == row["tokens"] == batch:
            results[row["what"]].append(row["ms"])
    if not all(results.values()):
        return None
    return HostTimes(median(results["schedule"]), median(results["metadata"]), len(results["metadata"]))
