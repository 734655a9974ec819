"""The demo's held-out questions as rows of data."""

from __future__ import annotations

from ...serving.data import Example
from .digits import held_out


def digit_examples(n: int, seed: int = 0) -> list[Example]:
    """`n` questions of `held_out` with their pictures in memory; rows are numbered from 1."""
    asked = enumerate(held_out(n, seed), 1)
    return [Example(row, q.image, q.question, q.answer, q.options) for row, q in asked]
