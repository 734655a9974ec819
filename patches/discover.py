"""Finding families and modes: every file `family_*.py` and `mode_*.py` of this folder is one."""

from __future__ import annotations

import importlib
import pkgutil


def load_all(package: str, path: list[str]) -> None:
    """Import every family and mode file of a package; each registers itself."""
    names = sorted(m.name for m in pkgutil.iter_modules(path))
    for name in names:
        if name.startswith(("mode_", "family_")):
            importlib.import_module(f"{package}.{name}")
