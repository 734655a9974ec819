"""The rows of data, wherever it is: the one reader behind every command that takes `--data`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..disk import disk_errors
from ..shown import shown
from ..tasks.row import Row
from .files import make_row, read_file
from .folders import DEFAULT_SPLITS, in_split, lists_of
from .library import SAVED, rows_of_folder, rows_of_hub
from .pictures import file_name_of
from .place import Place

QUESTIONS = 500  # of the built-in ones where nobody says how many

# (count, seed) -> rows of the built-in questions; a floor above this one knows them
Maker = Callable[[int, int], Iterator[Mapping[str, Any]]]
_MAKERS: list[Maker] = []


def supply_builtin(maker: Maker) -> Maker:
    """Make the built-in questions known; called once by their file."""
    _MAKERS[:] = [maker]
    return maker


def read_place(
    place: Place,
    needed: str = "",
    *,
    splits: Sequence[str] = DEFAULT_SPLITS,
    split: str = "",
    subset: str = "",
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[Row]:
    """Rows, one by one, pictures unopened.

    Args:
        needed: what each row needs, as the end of a message.
        splits: the first of these that is there, where neither `split` nor the place names one.
        subset: the configuration that is read if the data has it and the place names none.
        limit: at most so many.
        seed: of the built-in questions where the place names none.

    Raises:
        LostattnError: no such split, a row that is none, or whatever keeps the data from being read.
    """
    if split and place.split and split != place.split:
        raise LostattnError(f"the data names split {place.split}, --split {shown(split)}: give one of them")
    split = place.split or split
    if place.builtin:
        result = _builtin(place, needed, split, limit, seed)
    elif place.path is None:
        rows = rows_of_hub(place, splits, split, subset)
        result = (make_row(number, values, Path(), needed) for number, values in enumerate(rows, 1))
    elif place.path.is_dir():
        result = _folder(place.path, needed, splits, split, subset)
    elif split:
        raise LostattnError(f"{shown(place.name)} is one file without splits: leave #{shown(split)} or --split out")
    else:
        result = read_file(place.path, needed)
    return islice(result, limit)


def _builtin(place: Place, needed: str, split: str, limit: int | None, seed: int) -> Iterator[Row]:
    if not _MAKERS:
        raise LostattnError("the built-in questions are not at hand here: import lostattn.surgery.demo.builtin first")
    if split:
        raise LostattnError(f"the built-in questions have no splits: leave --split {shown(split)} out")
    count = min(place.count or limit or QUESTIONS, limit or place.count or QUESTIONS)
    rows = _MAKERS[0](count, seed if place.seed is None else place.seed)
    return (make_row(number, values, Path(), needed) for number, values in enumerate(rows, 1))


def _folder(path: Path, needed: str, splits: Sequence[str], split: str, subset: str) -> Iterator[Row]:
    saved = any((path / name).exists() for name in SAVED)
    with disk_errors(f"cannot read the folder {shown(str(path))}"):
        lists = None if saved else lists_of(path, splits, split)
    if lists is None:
        rows = rows_of_folder(path, splits, split, subset)
        return (make_row(number, values, path, needed) for number, values in enumerate(rows, 1))
    return _listed(lists[0], needed, lists[1])


def _listed(paths: Sequence[Path], needed: str, split: str) -> Iterator[Row]:
    """Rows of the lists behind each other; numbered through where there are several."""
    number, seen = 0, False
    for path in paths:
        for row in read_file(path, needed):
            number += 1
            if split and not in_split(file_name_of(row.get("image")), split):
                continue
            seen = True
            yield row if len(paths) == 1 else Row(number, row.values, row.folder, needed)
    if split and not seen:
        raise LostattnError(
            f"the data has no split {shown(split)}: no picture of its list lies in a folder of that name"
        )
