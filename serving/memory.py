"""Memory of a tree of processes."""

from __future__ import annotations

import re
from pathlib import Path


def peak_memory(pid: int) -> int:
    """Sum of the largest resident sizes, in bytes, that a process and its living descendants ever had.

    Memory that processes share counts once for each. Where the system does not keep the peak (it is Linux that does),
    the present size stands in for it. 0 if the process is gone.
    """
    import psutil

    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(_peak(process) for process in tree)


def _peak(process: object) -> int:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8", errors="replace")
        if result := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(result.group(1)) * 1024
    except OSError:
        pass
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
