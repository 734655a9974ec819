"""Finding tasks: every file `task_*.py` of this folder is one."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from ...patches.discover import suggestion
from ...patches.errors import LostattnError
from .task import TASKS, Task


def task_names() -> list[str]:
    """Names of all tasks, by their files, none of which is run."""
    result = (m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name.removeprefix("task_") for name in result if name.startswith("task_"))


def all_tasks() -> dict[str, Task]:
    """Every task by its name, in the order of the names."""
    for name in sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)])):
        if name.startswith("task_"):
            importlib.import_module(f"{__package__}.{name}")
    return dict(sorted(TASKS.items()))


def get_task(name: str) -> Task:
    """The task of that name; LostattnError lists the known ones."""
    tasks = all_tasks()
    if name not in tasks:
        raise LostattnError(f"unknown task '{name}'{suggestion(name, list(tasks))}: choose one of {', '.join(tasks)}")
    return tasks[name]
