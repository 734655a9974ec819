"""What `lostattn ask` asks: one picture or video that the user names, or rows of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ..serving.reading.pictures import open_picture
from ..serving.reading.videos import FRAMES, Clip, VideoFile
from .data import example_of, read_question_rows
from .tracing.boxes import Box, boxes_of, read_boxes


@dataclass(frozen=True)
class Asking:
    """One question about one opened picture or video; `boxes` are there for models of mode region."""

    picture: Image.Image | Clip
    question: str
    boxes: Sequence[Box] | None = None
    row: int = 0
    expected: str = ""


def one_picture(image: str, question: str, boxes: str | None) -> Asking:
    """A picture and boxes from files. Raises LostattnError."""
    return Asking(open_picture(image), question, read_boxes(boxes) if boxes else None)


def one_video(video: str, question: str, frames: int | None) -> Asking:
    """Frames of a video file. Raises LostattnError."""
    return Asking(VideoFile(video, frames=frames or FRAMES).open(), question)


def rows_of(data: str, limit: int, question: str = "") -> list[Asking]:
    """The first rows of data; `question` is asked instead of their own.

    Raises:
        LostattnError: no such data, or a row that cannot be used, named.
    """
    results = []
    for row in read_question_rows(data, limit):
        example = example_of(row, question)
        results.append(Asking(example.open(), example.question, boxes_of(row), example.row, example.answer))
    return results
