"""The small set of pictures and questions that ships with lostattn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...serving.data import Example, read_examples
from ...serving.reading.place import RANKING_SEED, Place
from ...serving.reading.reader import supply_builtin
from .digits import held_out

SEED = RANKING_SEED  # the demo is evaluated on other seeds


@supply_builtin
def builtin_rows(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """The first `count` held-out questions of a seed, with the boxes of their evidence; pictures in memory."""
    for q in held_out(count, seed):
        yield {
            "image": q.image,
            "question": q.question,
            "answer": q.answer,
            "options": list(q.options),
            "kind": q.kind,
            "boxes": [list(box) for box in q.boxes],
        }


def builtin_examples(count: int = 32, seed: int = SEED) -> list[Example]:
    """Questions about pictures of handwritten digits, enough to rank heads roughly."""
    return read_examples(Place("the demo", count=count, seed=seed))
