"""The items of the tasks that a user names, from the data that he names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.evaluation.store import items_fingerprint
from ...serving.reading.videos import VideoFile
from ...serving.tasks.discover import get_task
from ...serving.tasks.rows import HINT, read_items
from ...serving.tasks.task import Item, Task
from ..data import Place, find_place, refuse_ranking

DEMO, FREE = "digits", "questions"
PAPER_TOKENS, DEMO_TOKENS = 1024, 16  # longest answers: the paper's setting, and enough for a word


@dataclass(frozen=True)
class Asked:
    """One task with its items.

    Attributes:
        data: what reports call the data.
        prompt_version: of the prompts.
        max_tokens: longest answer.
    """

    task: Task
    items: Sequence[Item]
    data: str
    prompt_version: str
    max_tokens: int

    @property
    def has_videos(self) -> bool:
        """Whether an item asks about a video."""
        return any(isinstance(image, VideoFile) for item in self.items for image in item.images)

    @cached_property
    def fingerprint(self) -> str:
        """Names what is asked."""
        return items_fingerprint(self.items)


def read_tasks(
    names: Sequence[str],
    data: Sequence[str] = (),
    *,
    split: str = "",
    limit: int | None = None,
    max_tokens: int | None = None,
    prompt: str = "",
    reasoning: bool = False,
    seed: int = 0,
) -> list[Asked]:
    """Every task with its items, pictures unopened.

    Args:
        names: of tasks; none means `digits` for the demo's questions, and `questions` for all other data.
        data: `TASK=DATA`, or one DATA: of the only task, or a folder with a folder or file for every task; DATA as in
            `serving.reading.place`. A task without data takes its Hub id; `digits` takes the demo's held-out questions.
        max_tokens: None means 1024, and 16 for `digits`.
        seed: of the demo's questions.

    Raises:
        LostattnError: unknown tasks, data that is not there or of no task, a row that cannot be used.
    """
    names = names or _usual(data)
    if len(set(names)) < len(names):
        raise LostattnError("--task names a task twice: name each once")
    tasks = [get_task(name) for name in names]
    result = _places([t.name for t in tasks], data)
    out = []
    for task in tasks:
        given = result.get(task.name) or (DEMO if task.name == DEMO else task.hub)
        place = find_place(given, HINT) if given else None
        if place is not None:
            refuse_ranking(place, seed)
        items = read_items(task, place, split=split, prompt=prompt, reasoning=reasoning, limit=limit, seed=seed)
        name = _name(place, given or "", seed)
        tokens = max_tokens or (DEMO_TOKENS if task.name == DEMO else PAPER_TOKENS)
        out.append(Asked(task, items, name, task.prompt_version(prompt, reasoning), tokens))
    return out


def take_frames(asked: Asked, frames: int) -> Asked:
    """The same with so many frames of every video."""

    def taken(image: Any) -> Any:
        return replace(image, frames=frames) if isinstance(image, VideoFile) else image

    items = [replace(item, images=tuple(map(taken, item.images))) for item in asked.items]
    return replace(asked, items=items)


def _usual(data: Sequence[str]) -> list[str]:
    """The task where a user names data and no task: `digits` for the demo's questions, else free questions."""
    if not data:
        raise LostattnError(
            "name a task with --task ('lostattn tasks' lists them), or questions of your own with --data"
        )
    return [DEMO] if all(find_place(text, HINT).builtin for text in data) else [FREE]


def _places(names: Sequence[str], data: Sequence[str]) -> dict[str, str]:
    """Task -> where its data is."""
    places: dict[str, str] = {}
    for text in data:
        name, equals, path = text.partition("=")
        if equals and name in names:
            places[name] = path
        elif equals and not Path(text).exists():
            raise LostattnError(
                f"--data {text} names no task that is evaluated: write one of {', '.join(names)} before ="
            )
        elif len(names) == 1:
            places[names[0]] = text
        else:
            places |= {name: str(_inside(Path(text), name)) for name in names if name not in places}
    return places


def _inside(folder: Path, task: str) -> Path:
    results = [p for p in (folder / task, folder / f"{task}.jsonl", folder / f"{task}.parquet") if p.exists()]
    if not results:
        raise LostattnError(f"{folder} holds no data of task {task}: name it with --data {task}=PATH")
    return results[0]


def _name(place: Place | None, given: str, seed: int) -> str:
    """What reports call the data of a task."""
    if place is None:
        return given
    if place.builtin:
        return f"the demo's held-out questions, seed {seed if place.seed is None else place.seed}"
    return place.name
