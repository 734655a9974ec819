"""Some questions for the page: chosen so that what changed is seen, with small pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .accuracy import rights
from .parsing import LETTERS
from .questions import Question

SHOWN, SIDE, TINY = 12, 420, 200  # questions; pixels


@dataclass(frozen=True)
class Shot:
    """One question: a picture as a data URL, and per model the answer and whether it is right."""

    question: str
    expected: str
    picture: str
    tiny: bool
    answers: list[tuple[str, str, bool]]


def choose_shots(questions: Sequence[Question], answers: Mapping[str, Any]) -> list[Shot]:
    """Questions that a model lost or gained first (half of the places at most), then in the order of the data."""
    right = {name: rights(questions, rows) for name, rows in answers.items()}
    base = next(iter(answers))
    changed = [i for i in range(len(questions)) if any(r[i] != right[base][i] for r in right.values())]
    picked = changed[: SHOWN // 2]
    rest = [i for i in range(len(questions)) if i not in set(changed)]
    picked = [*picked, *_spaced(rest, SHOWN - len(picked))]
    return [_shot(questions[i], {n: (rows[i]["text"], right[n][i]) for n, rows in answers.items()}) for i in picked]


def _spaced(items: Sequence[int], count: int) -> list[int]:
    """`count` of the items from all over the list."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def _shot(question: Question, said: Mapping[str, tuple[str, bool]]) -> Shot:
    wanted = question.expected
    value = wanted.value
    if wanted.kind == "option":
        value = f"{value}. {wanted.options[LETTERS.index(value)]}"
    url, tiny = thumbnail(question.example.open())
    return Shot(question.text, value, url, tiny, [(name, text, right) for name, (text, right) in said.items()])


def thumbnail(image: Image.Image) -> tuple[str, bool]:
    """A small picture as a data URL, and whether it is so small that its pixels should be shown as they are."""
    tiny = max(image.size) <= TINY * 2
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG" if tiny else "JPEG", **({"optimize": True} if tiny else {"quality": 82}))
    kind = "png" if tiny else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", max(image.size) <= TINY
