"""What has to be mended before numba is loaded in a process of vLLM."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def answer_no_special_names() -> None:
    """llvmlite's library object takes any attribute for a C function, `__dict__` too, which vLLM reads of everything loaded
    when a second engine starts in one process."""
    from llvmlite.binding import ffi

    kind = type(ffi.lib)
    plain = kind.__getattr__

    def answer(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return plain(self, name)

    kind.__getattr__ = answer
