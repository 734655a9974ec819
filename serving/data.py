"""Question-answer data on disk: JSONL files and Hugging Face dataset folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from ..patches.errors import LostattnError
from .cause import cause
from .disk import disk_errors
from .images import as_rgb, open_image

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
                return as_rgb(self.image)
            image = self.image
            if isinstance(image, dict):
                image = image.get("bytes") or image["path"]
            return open_image(image if isinstance(image, bytes) else self.folder / image)
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
    with disk_errors(f"cannot read the data {data}"):
        if not path.exists():
            raise LostattnError(f"the data {data} does not exist: give a JSONL file or a dataset folder")
        rows, folder = (_folder_rows(path), path) if path.is_dir() else (_jsonl(path), path.parent)
        out = [_example(number, row, folder) for number, row in islice(rows, limit)]
    if not out:
        raise LostattnError(f"the data {data} has no rows: each row needs {FIELDS}")
    return out


def _example(number: int, row: Any, folder: Path) -> Example:
    if not isinstance(row, dict):
        raise LostattnError(f"row {number} is no object: each row needs {FIELDS}")
    image = row.get("image", row.get("file_name"))
    question, answer, options = row.get("question"), row.get("answer"), row.get("options") or ()
    if image is None or not isinstance(question, str) or not question.strip():
        raise LostattnError(f"row {number} has no image or no question: each row needs {FIELDS}")
    if not _is_image(image):
        raise LostattnError(f"row {number}: the image is {image!r:.80}: each row needs {FIELDS}")
    if not isinstance(options, list | tuple):
        raise LostattnError(f"row {number}: options must be a list of texts, not {options!r:.80}")
    if isinstance(answer, dict | list):
        raise LostattnError(f"row {number}: the answer must be one text, not {answer!r:.80}")
    return Example(number, image, question, "" if answer is None else str(answer), tuple(map(str, options)), folder)


def _is_image(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("bytes"), bytes) or isinstance(value.get("path"), str)
    return isinstance(value, Image.Image | bytes) or (isinstance(value, str) and bool(value))


def _folder_rows(path: Path) -> Iterable[tuple[int, Any]]:
    found = next((path / n for n in ("metadata.jsonl", "data.jsonl") if (path / n).is_file()), None)
    return _jsonl(found) if found else enumerate(_dataset(path), 1)


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of every line that is not empty."""
    number = 1
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - named in the error below
                if line.strip():
                    yield number, json.loads(line)
    except (ValueError, RecursionError) as error:
        if isinstance(error, LostattnError):
            raise
        raise LostattnError(f"row {number} of {path.name} is not JSON: write one object per line, in UTF-8") from error


def _dataset(path: Path) -> Iterable[Any]:
    try:
        from datasets import Image as ImageColumn
        from datasets import load_dataset, load_from_disk
    except ImportError as error:
        raise LostattnError(
            "the folder has no metadata.jsonl or data.jsonl, and reading dataset folders needs: pip install datasets"
        ) from error
    try:
        saved = (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()
        found = load_from_disk(str(path)) if saved else load_dataset(str(path))
        if isinstance(found, dict):
            found = found[next((n for n in ("validation", "test", "train") if n in found), next(iter(found)))]
        if isinstance((found.features or {}).get("image"), ImageColumn):
            found = found.cast_column("image", ImageColumn(decode=False))  # opened one by one, when it is their turn
    except Exception as error:  # datasets raises many kinds
        raise LostattnError(
            f"the folder {path.name} cannot be read as a dataset ({cause(error)}): give a JSONL file instead"
        ) from error
    return found
