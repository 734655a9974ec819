"""Peak memory of a piece of work."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch


class PeakMemory:
    """Watches the process's resident memory, or the GPU's, from `__enter__` on.

    A watch that starts within another one makes it forget its peak: hand the inner ones to the outer one's `include`.

    Example:
        >>> with PeakMemory("cpu") as peak:
        ...     work()
        >>> peak.report()["above_mb"]
    """

    def __init__(self, device: str | torch.device) -> None:
        self.cuda = torch.device(device).type == "cuda"
        self.before = self.peak = self.earlier = 0
        self.exact = True

    def __enter__(self) -> PeakMemory:
        if self.cuda:
            self.earlier, self.before = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            return self
        try:
            self.earlier, self.before = _status("VmHWM"), _status("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
        except OSError:
            self.exact, self.before = False, _lifetime_peak()
        return self

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self.peak = _status("VmHWM") if self.exact else _lifetime_peak()

    @property
    def above(self) -> int:
        """Bytes at the peak above what was there before."""
        return max(self.peak - self.before, 0)

    def include(self, inner: Iterable[PeakMemory]) -> None:
        """Count the peaks of watches that ran within this one."""
        self.peak = max([self.peak, *(max(p.peak, p.earlier) for p in inner)])

    def report(self) -> dict[str, Any]:
        """Megabytes (2^20 bytes) before, at the peak, and above; `above_mb` is a lower bound where `exact` is false."""
        mb = 2**20
        return {
            "what": "GPU memory" if self.cuda else "resident memory of the process",
            "before_mb": round(self.before / mb, 1),
            "peak_mb": round(self.peak / mb, 1),
            "above_mb": round(self.above / mb, 1),
            "exact": self.exact,
        }


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")


def _lifetime_peak() -> int:
    result = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result if sys.platform == "darwin" else result * 1024
