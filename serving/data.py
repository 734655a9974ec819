"""Questions about pictures with their answers, as rows of any data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from .reading.pictures import open_picture
from .reading.place import Place, find_place
from .reading.reader import read_place
from .reading.videos import VideoFile
from .shown import shown
from .tasks.row import Row

FIELDS = "image (a file name, bytes or base64 text) or video (a file name), question, answer, and optionally options (a list)"


@dataclass(frozen=True)
class Example:
    """One row: a picture as it has to be opened, or a video, and texts."""

    row: int
    image: Any
    question: str
    answer: str = ""
    options: tuple[str, ...] = ()
    folder: Path = Path()

    def open(self) -> Any:
        """The picture as RGB, or the video's frames (`Clip`); LostattnError names the row."""
        try:
            if isinstance(self.image, VideoFile):
                return self.image.open(self.folder)
            return open_picture(self.image, self.folder)
        except LostattnError as error:
            raise LostattnError(f"row {self.row}: {error}") from error


def read_examples(
    data: str | Path | Place, limit: int | None = None, *, seed: int = 0, question: str = ""
) -> list[Example]:
    """Read questions, pictures unopened.

    Args:
        data: as users write it (`serving.reading.place`).
        limit: at most so many rows.
        seed: of the built-in questions.
        question: asked of every row instead of the row's own.

    Raises:
        LostattnError: no such data, a row without a field, naming the row and the fields.
    """
    return [example_of(row, question) for row in read_question_rows(data, limit, seed)]


def read_question_rows(data: str | Path | Place, limit: int | None = None, seed: int = 0) -> list[Row]:
    """The rows behind `read_examples`, with all their fields."""
    place = data if isinstance(data, Place) else find_place(data)
    results = list(read_place(place, f"each row needs {FIELDS}", limit=limit, seed=seed))
    if not results:
        raise LostattnError(f"the data {shown(place.name)} has no rows: each row needs {FIELDS}")
    return results


def example_of(row: Row, question: str = "") -> Example:
    """One row as a question. LostattnError names the row and what it lacks."""
    image, text = row.values.get("image"), question or row.values.get("question")
    if image is None and row.get("video") is not None and isinstance(text, str) and text.strip():
        return Example(row.number, row.video(), text, _answer(row), options_in(row), row.folder)
    if image is None or not isinstance(text, str) or not text.strip():
        raise row.error("has no image or no question")
    picture = row.picture(image)
    if picture is None:
        raise LostattnError(
            f"row {row.number}: the image is {shown(image)!r}, with nothing in it: each row needs {FIELDS}"
        )
    return Example(row.number, picture, text, _answer(row), options_in(row), row.folder)


def _answer(row: Row) -> str:
    answer = row.values.get("answer")
    if isinstance(answer, dict | list | tuple | bytes):
        raise LostattnError(f"row {row.number}: the answer must be one text, not {shown(answer)}")
    return "" if row.get("answer") is None else str(answer)


def options_in(row: Row) -> tuple[str, ...]:
    """Texts of the options: the field `options`, a list or a text that holds one; else the fields A, B, C ..., two or more."""
    if not row.get("options"):
        lettered = row.lettered()
        return tuple(lettered.values()) if {"A", "B"} <= lettered.keys() else ()
    try:
        return tuple(map(str, row.listed("options")))
    except LostattnError:
        result = shown(row.get("options"))
        raise LostattnError(f"row {row.number}: options must be a list of texts, not {result!r}") from None
