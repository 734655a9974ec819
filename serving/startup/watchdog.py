"""Ends a server's process group when the process that started it is gone, however it died.

Run as a script: `watchdog.py GROUP GRACE`, with a pipe from the owner as standard input. A line says that all is in
order; the end of the pipe without one says that the owner died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


def watch(group: int, grace: float) -> None:
    """Wait for the owner's line or its death; in the second case end the group."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.stdin.buffer.readline():
        return
    end(group, grace)


def end(group: int, grace: float) -> None:
    """SIGTERM to the leader, which ends the others in good order; SIGKILL to the group when that takes too long."""
    until = time.monotonic() + grace
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(group, signal.SIGTERM)
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]))
