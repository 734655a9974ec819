"""The code that travels with a patched checkpoint, so that transformers alone can load it."""

from __future__ import annotations

from ...patches.bundle import ENTRY, bundle

__all__ = ["ENTRY", "travelling_files"]


def travelling_files(family: str, mode: str) -> dict[str, bytes]:
    """File name -> content of the code that a patched checkpoint of that family and mode has to bring."""
    from ...patches.family import get_family

    return {ENTRY: bundle(get_family(family).name, mode).encode()}
