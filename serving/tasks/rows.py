"""The items of a task, from whatever `serving.reading` reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..reading.forms import FORMS
from ..reading.place import Place, find_place
from ..reading.reader import read_place
from ..reading.videos import VideoFile
from .row import Row
from .task import Item, Task

HINT = f"give --data, {FORMS}"


def read_items(
    task: Task,
    data: str | Path | Place | None = None,
    *,
    split: str = "",
    prompt: str = "",
    reasoning: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> list[Item]:
    """The items of a task, with unique ids, in the data's order.

    Args:
        data: as users write it (`serving.reading.place`); None means the task's own Hub id.
        split: instead of the task's own.
        limit: at most so many.
        seed: of the built-in questions.

    Raises:
        LostattnError: no such data or split, a row without a field or picture, naming the row.
    """
    items: list[Item] = []
    for row in read_rows(task, data, split, limit, seed):
        item = task.item(row, prompt, reasoning)
        item = replace(item, images=tuple(_picture(row, image) for image in item.images))
        wanted = {part for part in item.prompt if isinstance(part, int)}
        if wanted and max(wanted) >= len(item.images):
            raise row.error("lacks a picture")
        items.append(item)
    if not items:
        raise LostattnError(f"the data of task {task.name} has no rows: {needs(task)}")
    return unique(items)


def read_rows(
    task: Task, data: str | Path | Place | None = None, split: str = "", limit: int | None = None, seed: int = 0
) -> Iterator[Row]:
    """The rows behind the items, one by one, pictures unopened."""
    if not data and not task.hub:
        raise LostattnError(f"task {task.name}: {HINT}")
    place = data if isinstance(data, Place) else find_place(data or task.hub, HINT)
    return read_place(place, needs(task), splits=task.splits, split=split, subset=task.subset, limit=limit, seed=seed)


def _picture(row: Row, image: Any) -> Any:
    if isinstance(image, VideoFile):
        return image
    result = row.picture(image)
    if result is None:
        raise row.error("lacks a picture")
    return result


def needs(task: Task) -> str:
    """What each row of a task needs, as the end of a message."""
    return f"each row of task {task.name} needs {task.needs}"


def unique(items: list[Item]) -> list[Item]:
    """The same items, with #2, #3 behind ids that occurred before."""
    seen: dict[str, int] = {}
    out = []
    for item in items:
        seen[item.id] = seen.get(item.id, 0) + 1
        out.append(item if seen[item.id] == 1 else replace(item, id=f"{item.id}#{seen[item.id]}"))
    return out


def repeated(items: Sequence[Item]) -> int:
    """How many items `unique` had to rename."""
    names = {item.id for item in items}
    numbered = (re.fullmatch(r"(.*)#\d+", item.id, re.S) for item in items)
    return sum(match is not None and match[1] in names for match in numbered)
