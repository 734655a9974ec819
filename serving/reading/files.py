"""Rows of one file: JSONL, JSON, CSV, TSV, parquet. Only parquet needs a library that is not ours."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..cause import cause
from ..disk import disk_errors
from ..shown import shown
from ..tasks.row import Row

TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
PARQUET = (".parquet", ".pq")
BATCH = 64  # rows of a parquet file in memory at once
LONGEST_FIELD = 2**31 - 1  # of a table: a picture as base64 text has millions of characters


def read_file(path: Path, needed: str = "") -> Iterator[Row]:
    """Rows of a file, numbered from 1: lines of JSONL, elements of JSON, records of a table; read as they are asked for.

    Args:
        needed: what each row needs, as the end of a message.

    Raises:
        LostattnError: a file that cannot be read as what its ending says, naming the row.
    """
    ending = path.suffix.lower()
    if ending in PARQUET:
        result: Iterable[tuple[int, Any]] = _parquet(path)
    elif ending in TABLES:
        result = _table(path, TABLES[ending])
    elif ending == ".json":
        result = _json(path, needed)
    else:
        result = _jsonl(path)
    with disk_errors(f"cannot read {shown(str(path))}"):
        for number, values in result:
            yield make_row(number, values, path.parent, needed, f" of {shown(path.name)}")


def make_row(number: int, values: Any, folder: Path, needed: str, where: str = "") -> Row:
    """A row whose pictures have one name: that of `file_name`, `x_file_name` and `images` is `image`, `x` and `image` too.

    Raises:
        LostattnError: the row is no object with fields.
    """
    if not isinstance(values, Mapping):
        raise LostattnError(f"row {number}{where} is no object: {needed or 'write one a line'}")
    row = Row(number, values, folder, needed)
    more: dict[str, Any] = {}
    for name in values:
        plain = "image" if name in ("file_name", "images") else str(name).removesuffix("_file_name")
        if plain != name and row.get(plain) is None and row.get(name) is not None:
            more.setdefault(plain, values[name])
    return Row(number, {**values, **more}, folder, needed) if more else row


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of every line that is not empty."""
    number = 1
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - named in the error below
                if line.strip():
                    value = json.loads(line)
                    yield number, value
    except (ValueError, RecursionError) as error:
        if isinstance(error, LostattnError):
            raise
        raise LostattnError(
            f"row {number} of {shown(path.name)} is not JSON: write one object per line, in UTF-8"
        ) from error


def _json(path: Path, needed: str) -> Iterable[tuple[int, Any]]:
    """Elements of a list; a file with an object on each line is JSONL, whatever it is called."""
    try:
        result = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return _jsonl(path)
    if isinstance(result, list):
        return enumerate(result, 1)
    if isinstance(result, dict):
        inside = [v for v in result.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        return enumerate(inside[0] if len(inside) == 1 else [result], 1)
    raise LostattnError(f"{shown(path.name)} holds no list of objects: {needed or 'write one'}")


def _table(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(LONGEST_FIELD)
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            head = _head(next(rows, []), path)
            for number, cells in enumerate((r for r in rows if r), 1):
                if len(cells) > len(head):
                    raise LostattnError(
                        f"row {number} of {shown(path.name)} has {len(cells)} cells, but the first line names {len(head)}: "
                        "put cells that hold the delimiter into quotes"
                    )
                yield number, {k: v for k, v in zip(head, cells, strict=False) if v != ""}
    except (csv.Error, UnicodeError) as error:
        raise LostattnError(
            f"row {number + 1} of {shown(path.name)} cannot be read ({shown(cause(error))}): write UTF-8, with cells that hold "
            "quotes or line breaks in quotes"
        ) from error


def _head(names: list[str], path: Path) -> list[str]:
    results = [name.strip() for name in names]
    if len(set(results)) < len(results):
        raise LostattnError(f"the first line of {shown(path.name)} names a column twice: name each once")
    return results


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise LostattnError("reading parquet, dataset folders and the Hub needs: pip install datasets") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except (LostattnError, GeneratorExit):
        raise
    except Exception as error:  # pyarrow raises many kinds
        raise LostattnError(
            f"{shown(str(path))} cannot be read as a dataset ({shown(cause(error))}): it is damaged or no parquet file"
        ) from error
