"""From rows of data to what is sent: the prompt's text, the picture's bytes, and the answer that counts as right."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ..client import data_url
from ..data import Example
from ..reading.pictures import picture_of
from .parsing import LETTERS, Expected, expected

OPTIONS_PROMPT = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
PROMPT_RULE = (
    "one user turn: the picture, then the question as it stands in the data; options that the question does not list itself "
    f"follow as in {OPTIONS_PROMPT!r}"
)


@dataclass(frozen=True)
class Question:
    """One row, ready to be asked."""

    example: Example
    text: str
    expected: Expected

    def picture(self) -> str:
        """The picture as RGB, lossless, as a data URL; LostattnError names the row."""
        return data_url(self.example.open())


def make_questions(examples: Sequence[Example]) -> list[Question]:
    """All rows, checked before anything is asked.

    Raises:
        LostattnError: a row without a usable answer, named.
    """
    return [Question(example, _text(example), expected(example)) for example in examples]


def _text(example: Example) -> str:
    listed = [
        re.search(rf"(?<!\w){letter}\s*[.):]\s*{re.escape(option)}", example.question)
        for letter, option in zip(LETTERS, example.options, strict=False)
    ]
    if all(listed):
        return example.question
    options = "\n".join(f"{letter}. {o}" for letter, o in zip(LETTERS, example.options, strict=False))
    return OPTIONS_PROMPT.format(question=example.question, options=options)


def data_fingerprint(examples: Sequence[Example]) -> str:
    """Names questions, answers and pictures, the same in every process."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.row, example.question, example.answer, example.options)).encode())
        digest.update(picture_fingerprint(example))
    return digest.hexdigest()


def picture_fingerprint(example: Example) -> bytes:
    """Names the picture's content."""
    image = picture_of(example.image, example.folder)
    if isinstance(image, Image.Image):
        return f"{image.mode} {image.size}".encode() + hashlib.sha256(image.tobytes()).digest()
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    path = example.folder / str(image)
    if not path.is_file():
        example.open()  # says what is wrong, and in which row
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
