"""Finding families and modes: every file `family_*.py` and `mode_*.py` of this folder is one."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
KINDS = ("mode", "family")


def load_all(package: str, path: list[str]) -> None:
    """Import every family and mode file of a package; each registers itself."""
    names = sorted(m.name for m in pkgutil.iter_modules(path))
    for name in names:
        if name.startswith(tuple(f"{kind}_" for kind in KINDS)):
            importlib.import_module(f"{package}.{name}")


def names_of(kind: str) -> list[str]:
    """Names of all modes or families, by their files, none of which is run."""
    result = (m.name for m in pkgutil.iter_modules([str(FOLDER)]))
    return sorted(name.removeprefix(f"{kind}_") for name in result if name.startswith(f"{kind}_"))


def suggestion(word: str, known: Sequence[str]) -> str:
    """` (did you mean noise?)` where a known word is near, else nothing."""
    near = difflib.get_close_matches(word.lower(), known, 1)
    return f" (did you mean {near[0]}?)" if near else ""
