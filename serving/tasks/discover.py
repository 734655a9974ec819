"""Finding tasks: every file `task_*.py` of this folder is one."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from ...patches.errors import LostattnError
from .task import TASKS, Task


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
        raise LostattnError(f"unknown task '{name}': choose one of {', '.join(tasks)}")
    return tasks[name]
