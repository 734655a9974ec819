"""The transformers versions that the patched classes were tested with."""

from __future__ import annotations

import importlib
import re

import transformers

from .errors import LostattnError

OLDEST = (5, 19)
# The newest version that the tests ran on. On newer ones a patched model proves itself when it is loaded (`selfcheck`).
NEWEST_TESTED = (5, 24)


def installed() -> tuple[int, ...]:
    """Major and minor version of the installed transformers."""
    # transformers puts another module object in its own place while it loads, so there may be two
    known = {transformers.__version__, importlib.import_module("transformers").__version__}
    return max(tuple(int(x) for x in re.findall(r"\d+", text)[:2]) for text in known)


def named() -> str:
    """The installed transformers, for messages."""
    return f"transformers {max(transformers.__version__, importlib.import_module('transformers').__version__)}"


def tested_range() -> str:
    """The tested versions, as pip takes them."""
    return f"transformers>={OLDEST[0]}.{OLDEST[1]},<{NEWEST_TESTED[0]}.{NEWEST_TESTED[1] + 1}"


def check_versions() -> None:
    """Raise LostattnError, with the mend, if the installed transformers is older than what patched models can run on."""
    if installed() < OLDEST:
        raise LostattnError(f"{named()} is not supported: pip install '{tested_range()}'")
