"""Where a result comes from: versions, time and command line, free of paths and secrets of this machine."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePosixPath

from ...serving.versions import lostattn_version, package_version, versions

__all__ = ["lostattn_version", "package_version", "portable", "utc_now", "versions"]
# An absolute or home path, not within URLs or relative paths.
_PATH = re.compile(r"(?<![\w:/.~-])(?:~[\w.-]*)?/[^\s'\"=,;:]*")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


def utc_now() -> str:
    """Now, as 2026-01-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def portable(text: str) -> str:
    """The text with absolute paths cut down to their last part and Hub tokens blanked: it will be published."""
    return _TOKEN.sub("hf_***", _PATH.sub(lambda match: PurePosixPath(match.group()).name or "/", text))
