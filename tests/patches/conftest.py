"""Tiny models, built once."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import tiny


@pytest.fixture(scope="session")
def plain() -> Any:
    """name -> plain tiny model (shared: do not change it)."""
    return cache(tiny.make_plain)
