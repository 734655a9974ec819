"""The small set of pictures and questions that ships with lostattn."""

from __future__ import annotations

from ...serving.data import Example
from .digits import held_out

SEED = 1000  # the demo is evaluated on other seeds


def builtin_examples(count: int = 32, seed: int = SEED) -> list[Example]:
    """Questions about pictures of handwritten digits, enough to rank heads roughly."""
    return [Example(i, q.image, q.question, q.answer, q.options) for i, q in enumerate(held_out(count, seed=seed), 1)]
