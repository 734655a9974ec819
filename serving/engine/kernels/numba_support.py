"""What compiled loops need of numba and of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from typing import Any

import torch


def in_parallel(run: Callable[[int, int], None], units: int, worth: int) -> None:
    """Call run(first, end) for ranges of units, on `worth` threads at most; the loops let go of Python's lock."""
    threads = min(torch.get_num_threads(), max(worth, 1), units)
    if threads <= 1:
        run(0, units)
        return
    cuts = [units * i // threads for i in range(threads + 1)]
    pending = [_pool().submit(run, a, b) for a, b in zip(cuts[1:], cuts[2:], strict=False)]
    run(cuts[0], cuts[1])
    wait(pending)
    for one in pending:
        one.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(torch.get_num_threads() - 1, 1), "lostattn", _spread, (_cores(),))


def _cores() -> set[int]:
    """The cores of this process; vLLM binds the main thread, which new threads take after, to one of them."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    own = os.sched_getaffinity(0)
    if len(own) > 1:
        return own
    results: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # threads may end meanwhile
            bound = os.sched_getaffinity(int(thread))
            results |= bound if len(bound) == 1 else set()
    return results


def _spread(cores: set[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)


@cache
def answer_no_special_names() -> None:
    """Mend llvmlite before numba is loaded in a process of vLLM: its library
    object takes any attribute for a C function, `__dict__` too, which vLLM reads of everything loaded
    when a second engine starts in one process."""
    from llvmlite.binding import ffi

    kind = type(ffi.lib)
    plain = kind.__getattr__

    def answer(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return plain(self, name)

    kind.__getattr__ = answer
