"""The demo's held-out questions as rows of data."""

from __future__ import annotations

from ...serving.data import Example
from .builtin import builtin_examples


def digit_examples(n: int, seed: int = 0) -> list[Example]:
    """`n` questions of `held_out` with their pictures in memory; rows are numbered from 1."""
    return builtin_examples(n, seed)
