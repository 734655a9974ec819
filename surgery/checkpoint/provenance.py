"""Where a result comes from: versions, time and command line, free of paths and secrets of this machine."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import PurePosixPath

PACKAGES = ("torch", "transformers", "safetensors")
# An absolute or home path, not within URLs or relative paths.
_PATH = re.compile(r"(?<![\w:/.~-])(?:~[\w.-]*)?/[^\s'\"=,;:]*")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


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
    found = {"lostattn": lostattn_version(), "python": platform.python_version()}
    found |= {name: package_version(name) or "absent" for name in PACKAGES}
    return found | {"platform": f"{platform.system()} {platform.machine()}"}


def utc_now() -> str:
    """Now, as 2026-01-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def portable(text: str) -> str:
    """The text with absolute paths cut down to their last part and Hub tokens blanked: it will be published."""
    return _TOKEN.sub("hf_***", _PATH.sub(lambda match: PurePosixPath(match.group()).name or "/", text))
