"""Lists of rows in a folder: of an imagefolder, one list or one for every split; or plain tables named after their split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...patches.errors import LostattnError
from ..shown import shown

ENDINGS = ("jsonl", "csv", "tsv", "parquet")
OWN = tuple(f"{name}.{ending}" for name in ("metadata", "data") for ending in ENDINGS)  # a folder's own list
LISTS = tuple(f"metadata.{ending}" for ending in ENDINGS)  # of an imagefolder, also below it
DEPTH = 3  # folders below that are looked into
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
DEFAULT_SPLITS = ("validation", "test", "train")  # the first of these that is there, where nobody names one


def lists_of(folder: Path, splits: Sequence[str], split: str) -> tuple[list[Path], str] | None:
    """The lists to read, and the split that their rows still have to be searched for; None if the folder has none.

    Args:
        splits: the first of these that is there is taken where `split` is "".

    Raises:
        LostattnError: lists of several splits, and none of those that are wanted.
    """
    own = next((folder / name for name in OWN if (folder / name).is_file()), None)
    if own is not None:
        return [own], split
    result = [p for p in _walk(folder) if p.name in LISTS] or _tables(folder)
    if not result:
        return None
    by_split: dict[str, list[Path]] = {}
    for path in result:
        by_split.setdefault(_split_of(path, folder), []).append(path)
    return by_split[choose_split(list(by_split), splits, split)], ""


def choose_split(there: Sequence[str], splits: Sequence[str], split: str) -> str:
    """The wanted split among those that are there; spellings such as `val` and `dev` count as `validation`.

    Raises:
        LostattnError: there is none of that name; lists what there is.
    """
    wanted = [split] if split else list(splits)
    for name in wanted:
        if (same := _named(name, there)) is not None:
            return same
    if len(there) == 1 and not split:
        return there[0]
    more = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
    raise LostattnError(
        f"the data has no split {shown(' or '.join(wanted))}: choose one of {more}, by #NAME behind the data's name"
    )


def in_split(name: str, split: str) -> bool:
    """Whether a picture's file name lies in the folder of a split."""
    first = Path(name).parts[:1]
    return bool(first) and _named(split, first) is not None


def _named(split: str, there: Sequence[str]) -> str | None:
    if split in there:
        return split
    meant = SPLITS.get(split.lower())
    return next((t for t in there if meant is not None and SPLITS.get(t.lower()) == meant), None)


def _split_of(path: Path, folder: Path) -> str:
    """By the folders above a list, then by the name of a table (`train-00000-of-00001.parquet`); else `train`."""
    parts = path.relative_to(folder).parts[:-1]
    if (by_folder := next((p for p in parts if p.lower() in SPLITS), None)) is not None:
        return by_folder
    words = re.split(r"[-_.]", path.stem) if path.name not in LISTS else []
    return next((w for w in words if w.lower() in SPLITS), "train")


def _walk(folder: Path) -> Iterator[Path]:
    """Files at most `DEPTH` folders below, in a fixed order; hidden folders and links to folders are left out."""
    for current, names, files in os.walk(folder):
        depth = len(Path(current).relative_to(folder).parts)
        names[:] = sorted(n for n in names if not n.startswith(".")) if depth < DEPTH else []
        yield from (Path(current) / name for name in sorted(files))


def _tables(folder: Path) -> list[Path]:
    """JSONL, CSV and TSV files in the folder itself; parquet and what a README describes are the library's matter."""
    if (folder / "README.md").exists():
        return []
    results = sorted(p for e in ENDINGS if e != "parquet" for p in folder.glob(f"*.{e}") if p.is_file())
    splits = {_split_of(p, folder) for p in results}
    if len(results) > len(splits):
        names = ", ".join(p.name for p in results[:5])
        raise LostattnError(f"the folder {shown(folder.name)} holds several tables ({shown(names)}): name one of them")
    return results
