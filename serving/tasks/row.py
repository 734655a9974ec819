"""One row of a data set, whose fields are asked for by name; what is missing is said with the row's number."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...patches.errors import LostattnError
from ..reading.pictures import picture_of
from ..reading.videos import FRAMES, MOST_FRAMES, VideoFile
from ..shown import shown

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Row:
    """Fields of one row; None, NaN and the text 'nan' are what a table writes where it has nothing."""

    number: int
    values: Mapping[str, Any]
    folder: Path = Path()
    needs: str = ""

    def get(self, *names: str) -> Any:
        """The first of these fields that has something in it, or None."""
        for name in names:
            value = self.values.get(name)
            if not _nothing(value):
                return value
        return None

    def need(self, *names: str) -> Any:
        """The same, but there has to be one."""
        value = self.get(*names)
        if value is None:
            raise self.error(f"has no field '{names[0]}'")
        return value

    def text(self, *names: str) -> str:
        """A field as a text."""
        value = self.need(*names)
        if not isinstance(value, str) and (isinstance(value, bytes | Image.Image) or hasattr(value, "__len__")):
            raise self.error(f"has no text in field '{names[0]}'")
        return str(value)

    def one_of(self, allowed: Mapping[str, str], *names: str) -> str:
        """A field whose text, in lower case, is a key of `allowed`; gives the value there."""
        text = self.text(*names).strip()
        if text.lower() not in allowed:
            raise self.error(
                f"has {shown(text, 40)!r} in field '{names[0]}', which must be one of {', '.join(allowed)}"
            )
        return allowed[text.lower()]

    def listed(self, *names: str) -> list[Any]:
        """A field that is a list, or a text that holds one in Python's or JSON's notation; [] if it has nothing."""
        value = self.get(*names)
        if isinstance(value, str):
            value = _listed_in(value) if value.strip() else []
        if value is None:
            return []
        if isinstance(value, Mapping | str | bytes) or not hasattr(value, "__iter__"):
            raise self.error(f"has no list in field '{names[0]}'")
        return list(value)

    def lettered(self) -> dict[str, str]:
        """The options in the fields A, B, C, ..., letter -> text; absent ones left out."""
        return {x: str(self.get(x)) for x in LETTERS if self.get(x) is not None}

    def letter(self, options: Mapping[str, str], *names: str) -> str:
        """A field that holds the letter of an option."""
        return self.one_of({x.lower(): x for x in options}, *names)

    def images(self, *names: str) -> tuple[Any, ...]:
        """The first picture field that is there; () if there is none, as when only answers are scored."""
        value = self.get(*names)
        return () if value is None or (isinstance(value, str) and not value) else (value,)

    def video(self, name: str = "video") -> VideoFile:
        """The video file that a field names, unopened."""
        value = self.need(name)
        if not isinstance(value, str | Path) or "://" in str(value):
            raise self.error(f"has {shown(value, 60)} in field '{name}', which must name a video file")
        return self.video_named(str(value))

    def video_named(self, path: str) -> VideoFile:
        """A video file, unopened; field `frames` says how many frames are taken out of it."""
        frames = FRAMES if self.get("frames") is None else self.get("frames")
        if isinstance(frames, bool) or not isinstance(frames, int) or not 1 <= frames <= MOST_FRAMES:
            raise self.error(
                f"has {shown(frames, 40)} in field 'frames', which must be a number from 1 to {MOST_FRAMES}"
            )
        return VideoFile(path, frames=frames)

    def visuals(self, *names: str) -> tuple[Any, ...]:
        """As `images`, or the video of field `video`."""
        return (self.video(),) if self.get("video") is not None and not self.images(*names) else self.images(*names)

    def picture(self, value: Any) -> Any:
        """The one picture in a value of this row, unopened; None if there is nothing. LostattnError names the row."""
        try:
            return picture_of(value, self.folder)
        except LostattnError as error:
            raise LostattnError(f"row {self.number}: {error}") from error

    def cluster(self, images: tuple[Any, ...], otherwise: str, *names: str) -> str:
        """Names what items share: a field, else a digest of the first picture, else `otherwise`."""
        named = self.get(*names)
        if named is not None:
            return str(named)
        if images and isinstance(images[0], VideoFile):
            return images[0].path
        try:
            image = picture_of(images[0], self.folder) if images else None
        except LostattnError:  # what is wrong with it is said where it is needed
            image = None
        if isinstance(image, Image.Image):
            image = image.tobytes()
        return hashlib.sha256(image).hexdigest()[:16] if isinstance(image, bytes) else str(image or otherwise)

    def error(self, what: str) -> LostattnError:
        """A sentence that names the row and what a row needs."""
        return LostattnError(f"row {self.number} {what}: {self.needs or 'correct that row'}")


def _nothing(value: Any) -> bool:
    """None, NaN and the text 'nan'; what is no plain value is something."""
    if isinstance(value, str):
        return value.strip().lower() == "nan"
    return value is None or (isinstance(value, float) and value != value)


def _listed_in(text: str) -> Any:
    """The list that a text holds; the text itself if it holds none."""
    for read in (ast.literal_eval, json.loads):
        try:
            result = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(result, list | tuple):
            return list(result)
    return text


def options_of(texts: list[Any]) -> dict[str, str]:
    """Letters for a list of options."""
    return {letter: str(text) for letter, text in zip(LETTERS, texts, strict=False)}
