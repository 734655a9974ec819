"""Question-answer data on disk: JSONL files and Hugging Face dataset folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..patches.errors import LostattnError
from .images import open_image

FIELDS = "image (a file name, or bytes in a dataset), question, answer, and optionally options (a list)"


@dataclass(frozen=True)
class Example:
    """One row: a picture as it has to be opened, and texts."""

    row: int
    image: Any
    question: str
    answer: str = ""
    options: tuple[str, ...] = ()
    folder: Path = Path()

    def open(self) -> Image.Image:
        """The picture as RGB; LostattnError names the row."""
        try:
            if isinstance(self.image, Image.Image):
                return self.image.convert("RGB")
            if isinstance(self.image, dict) and self.image.get("bytes"):
                return open_image(self.image["bytes"])
            if isinstance(self.image, dict):
                return open_image(self.folder / str(self.image.get("path")))
            return open_image(self.image if isinstance(self.image, bytes) else self.folder / self.image)
        except LostattnError as error:
            raise LostattnError(f"row {self.row}: {error}") from error


def read_examples(data: str | Path, limit: int | None = None) -> list[Example]:
    """Read a JSONL file, a folder with one (`metadata.jsonl`, `data.jsonl`), or a dataset saved with `datasets`.

    Args:
        limit: at most so many rows.

    Raises:
        LostattnError: no such data, a row without a field, naming the row and the fields.
    """
    path = Path(data)
    if not path.exists():
        raise LostattnError(f"the data {data} does not exist: give a JSONL file or a dataset folder")
    if path.is_dir():
        found = next((path / n for n in ("metadata.jsonl", "data.jsonl") if (path / n).is_file()), None)
        rows: Iterable[dict[str, Any]] = _jsonl(found) if found else _dataset(path)
    else:
        rows = _jsonl(path)
    folder = path if path.is_dir() else path.parent
    out: list[Example] = []
    for number, row in enumerate(rows, 1):
        if limit is not None and len(out) >= limit:
            break
        out.append(_example(number, row, folder))
    if not out:
        raise LostattnError(f"the data {data} has no rows")
    return out


def _example(number: int, row: Any, folder: Path) -> Example:
    if not isinstance(row, dict):
        raise LostattnError(f"row {number} is no object: each row needs {FIELDS}")
    image = row.get("image", row.get("file_name"))
    if image is None or not isinstance(row.get("question"), str):
        raise LostattnError(f"row {number} has no image or no question: each row needs {FIELDS}")
    options = row.get("options") or ()
    if not isinstance(options, list | tuple):
        raise LostattnError(f"row {number}: options must be a list")
    return Example(number, image, row["question"], str(row.get("answer", "")), tuple(map(str, options)), folder)


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                number += 1
                if line.strip():
                    yield json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LostattnError(f"line {number} of {path.name} is not JSON: write one object per line") from error


def _dataset(path: Path) -> Iterable[dict[str, Any]]:
    try:
        from datasets import DatasetDict, load_dataset, load_from_disk
    except ImportError as error:
        raise LostattnError(
            "the folder has no metadata.jsonl or data.jsonl, and reading dataset folders needs: pip install datasets"
        ) from error
    try:
        saved = (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()
        found = load_from_disk(str(path)) if saved else load_dataset(str(path))
    except Exception as error:  # datasets raises many kinds
        raise LostattnError(
            f"the folder {path.name} cannot be read as a dataset: {str(error).splitlines()[0]}"
        ) from error
    if isinstance(found, dict | DatasetDict):
        found = found[next((n for n in ("validation", "test", "train") if n in found), next(iter(found)))]
    return found
