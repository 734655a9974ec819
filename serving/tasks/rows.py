"""Rows of a task's data: JSONL, parquet, a Hugging Face dataset folder, or a Hub id."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..cause import cause
from ..disk import disk_errors
from .row import Row
from .task import Item, Task

LISTS = ("metadata.jsonl", "data.jsonl")


def read_items(
    task: Task,
    data: str | Path | None = None,
    *,
    split: str = "",
    prompt: str = "",
    reasoning: bool = False,
    limit: int | None = None,
) -> list[Item]:
    """The items of a task, with unique ids, in the data's order.

    Args:
        data: a JSONL or parquet file, a dataset folder, or a Hub id; None means the task's own Hub id.
        split: instead of the task's own.
        limit: at most so many.

    Raises:
        LostattnError: no such data or split, a row without a field or picture, naming the row.
    """
    items: list[Item] = []
    for row in read_rows(task, data, split):
        if limit is not None and len(items) >= limit:
            break
        item = task.item(row, prompt, reasoning)
        wanted = {part for part in item.prompt if isinstance(part, int)}
        if wanted and max(wanted) >= len(item.images):
            raise row.error("lacks a picture")
        items.append(item)
    if not items:
        raise LostattnError(f"the data of task {task.name} has no rows: {needs(task)}")
    return unique(items)


def read_rows(task: Task, data: str | Path | None = None, split: str = "") -> Iterator[Row]:
    """The rows behind the items, one by one, pictures unopened."""
    path = Path(data) if data else None
    if path is None or not path.exists():
        yield from _numbered(_hub(task, str(data or task.hub), split), Path(), needs(task))
        return
    listed = next((path / n for n in LISTS if (path / n).is_file()), None) if path.is_dir() else path
    if listed is not None and listed.suffix != ".parquet":
        yield from read_jsonl(listed, needs(task))
    else:
        yield from _numbered(_local(task, path, split), path if path.is_dir() else path.parent, needs(task))


def read_jsonl(path: Path, needed: str = "") -> Iterator[Row]:
    """Rows of a JSONL file, numbered by its lines."""
    number = 1
    try:
        with disk_errors(f"cannot read {path}"), path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - named in the error below
                if not line.strip():
                    continue
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise LostattnError(f"row {number} of {path.name} is no object: {needed or 'write one a line'}")
                yield Row(number, values, path.parent, needed)
    except (ValueError, RecursionError) as error:
        if isinstance(error, LostattnError):
            raise
        raise LostattnError(f"row {number} of {path.name} is not JSON: write one object per line, in UTF-8") from error


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


def _numbered(table: Any, folder: Path, needed: str) -> Iterator[Row]:
    for number, values in enumerate(table, 1):
        yield Row(number, values, folder, needed)


def _local(task: Task, path: Path, split: str) -> Any:
    datasets = _library()
    try:
        if path.is_file():
            return _raw(datasets.load_dataset("parquet", data_files=str(path), split="train"))
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
            return _raw(_split(task, datasets.load_from_disk(str(path)), split))
        return _all_subsets(datasets, task, str(path), split)
    except LostattnError:
        raise
    except Exception as error:  # datasets raises many kinds
        raise LostattnError(
            f"{path} cannot be read as a dataset ({cause(error)}): give a JSONL file instead"
        ) from error


def _hub(task: Task, name: str, split: str) -> Any:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        hint = "give --data, a JSONL or parquet file or a dataset folder"
        raise LostattnError(f"the data {name} does not exist: {hint}" if name else f"task {task.name}: {hint}")
    datasets = _library()
    try:
        return _all_subsets(datasets, task, name, split)
    except LostattnError:
        raise
    except Exception as error:
        off = " (the Hub is switched off by HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise LostattnError(
            f"the data {name} is no file here and cannot be had from the Hub{off}: {cause(error)}; "
            "give a JSONL or parquet file or a dataset folder"
        ) from error


def _all_subsets(datasets: Any, task: Task, name: str, split: str) -> Any:
    """One configuration, or all behind each other (MMMU has one for every subject)."""
    subsets = datasets.get_dataset_config_names(name)
    chosen = [task.subset] if task.subset in subsets else subsets
    parts = [_raw(_split(task, datasets.load_dataset(name, s), split)) for s in chosen]
    return (row for part in parts for row in part)


def _split(task: Task, found: Any, split: str) -> Any:
    if not isinstance(found, dict):
        return found
    wanted = [split] if split else list(task.splits)
    name = next((n for n in wanted if n in found), next(iter(found)) if len(found) == 1 and not split else None)
    if name is None:
        raise LostattnError(f"the data has no split {' or '.join(wanted)}: choose one of {', '.join(found)}")
    return found[name]


def _raw(table: Any) -> Any:
    """Picture columns undecoded: they are opened one by one, when it is their turn."""
    from datasets import Image as ImageColumn

    for name, kind in (table.features or {}).items():
        if isinstance(kind, ImageColumn):
            table = table.cast_column(name, ImageColumn(decode=False))
    return table


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise LostattnError("reading parquet, dataset folders and the Hub needs: pip install datasets") from error
    return datasets
