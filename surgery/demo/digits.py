"""The demo's task: questions about pictures of handwritten digits.

A picture is a grid of cells, 28 pixels a side, so that one cell is one visual token of a Qwen2.5-VL vision tower with
14-pixel patches merged 2 x 2. Some cells hold a real handwritten digit (dark ink on white), the others are blank. Two
kinds of questions, both about content, neither about places:

    presence  "Is there a 7 in the image?"                                        -> "yes" or "no"
    choice    "Which of these digits is in the image? A. 3 B. 5 C. 7 D. 9"        -> the letter of the one that is

The digits are scikit-learn's copy of the UCI test set "Optical Recognition of Handwritten Digits" (CC BY 4.0). The
first 1400 are for training, the last 397 (by other writers) are held out. Everything random comes from
`random.Random.random`, the one stream that Python promises to keep, and the pixels from integer arithmetic: the same
arguments give the same pictures on every platform.
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

CELL = 28  # pixels a side = one visual token
MAX_SIDE = 8  # cells a side: at most 64 visual tokens
MAX_DIGITS = 12  # digits shown in one picture; the other cells are blank
MAX_CLASSES = 7  # different digits shown in one picture: three are left to be wrong options
BLANK = -1
LETTERS = ("A", "B", "C", "D")
KINDS = ("presence", "choice")
SPLITS = {"train": range(0, 1400), "held_out": range(1400, 1797)}
DIGITS_FILE = Path(__file__).parent / "digits.safetensors"

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes:
        question: the complete text that the model sees beside the picture.
        boxes: (x, y, width, height) of the evidence in pixels: the cells of the digit that the answer is about; if none of
            them is there, of all digits, for only they together show that.
    """

    image: Image.Image
    question: str
    answer: str
    kind: str
    options: tuple[str, ...] = ()
    boxes: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True)
class Scene:
    """Which digit stands in which cell: `cells` is row-major, an index into the digit bank or `BLANK`."""

    rows: int
    cols: int
    cells: tuple[int, ...]

    def shown(self) -> list[int]:
        """The different digits 0..9 that the picture shows, ascending."""
        labels = digit_bank().labels
        return sorted({int(labels[cell]) for cell in self.cells if cell != BLANK})

    def boxes(self, digit: int) -> tuple[tuple[int, int, int, int], ...]:
        """Cells of a digit, in pixels; of all digits if it is not shown."""
        labels = digit_bank().labels
        filled = {place: int(labels[cell]) for place, cell in enumerate(self.cells) if cell != BLANK}
        places = [p for p, label in filled.items() if label == digit] or list(filled)
        return tuple((p % self.cols * CELL, p // self.cols * CELL, CELL, CELL) for p in places)


class DigitBank(NamedTuple):
    """All digits: `ink` is uint8 (1797, 28, 28), 0 paper to 255 full ink; `labels` is uint8 (1797,)."""

    ink: np.ndarray
    labels: np.ndarray


class Draw:
    """Random choices built on `random.Random.random` alone, whose sequence no Python version may change."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, n: int) -> int:
        """An integer of 0..n-1."""
        return int(self._random.random() * n)

    def between(self, low: int, high: int) -> int:
        """An integer of low..high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def one(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], k: int) -> list[T]:
        """`k` different ones of the items, in random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(k)]


@functools.lru_cache(maxsize=1)
def digit_bank() -> DigitBank:
    """Read the packaged digits and enlarge each to a cell: 8 x 8 -> 24 x 24, bilinear, with a margin of 2 pixels."""
    tensors = load_file(DIGITS_FILE)
    images = tensors["images"].astype(np.int64)  # (1797, 8, 8), 0..16
    weights = np.zeros((24, 8), dtype=np.int64)  # bilinear weights in thirds: integers, so every platform agrees
    for i in range(24):
        whole, third = divmod(i - 1, 3)
        weights[i, max(whole, 0)] += 3 - third
        weights[i, min(whole + 1, 7)] += third
    large = weights @ images @ weights.T  # (1797, 24, 24), 0..16*9
    ink = np.zeros((len(images), CELL, CELL), dtype=np.uint8)
    ink[:, 2:-2, 2:-2] = (large * 255 + 72) // 144
    return DigitBank(ink, tensors["labels"])


@functools.lru_cache(maxsize=2)
def _by_label(split: str) -> tuple[tuple[int, ...], ...]:
    """Bank indices of a split, one tuple for each digit 0..9."""
    labels = digit_bank().labels
    return tuple(tuple(i for i in SPLITS[split] if labels[i] == digit) for digit in range(10))


def draw_scene(draw: Draw, rows: int, cols: int, split: str) -> Scene:
    """A picture of `rows` x `cols` cells with 1 to 7 different digits of the split, up to 12 in all."""
    n_cells = rows * cols
    n_classes = draw.between(1, min(MAX_CLASSES, n_cells))
    classes = draw.some(range(10), n_classes)
    n_digits = draw.between(n_classes, min(MAX_DIGITS, n_cells))
    labels = classes + [draw.one(classes) for _ in range(n_digits - n_classes)]
    cells = [BLANK] * n_cells
    for place, label in zip(draw.some(range(n_cells), n_digits), labels, strict=True):
        cells[place] = draw.one(_by_label(split)[label])
    return Scene(rows, cols, tuple(cells))


def ask(draw: Draw, shown: Sequence[int], kind: str) -> tuple[str, str, tuple[str, ...]]:
    """A question of this kind about a picture that shows these digits: (question, answer, options)."""
    absent = [digit for digit in range(10) if digit not in shown]
    if kind == "presence":
        answer = draw.one(("yes", "no"))
        digit = draw.one(shown if answer == "yes" else absent)
        return f"Is there a {digit} in the image?", answer, ()
    right = draw.below(len(LETTERS))
    digits = draw.some(absent, len(LETTERS) - 1)
    digits.insert(right, draw.one(shown))
    options = tuple(str(digit) for digit in digits)
    listed = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
    return f"Which of these digits is in the image? {listed}", LETTERS[right], options


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, `cols` * 28 x `rows` * 28 pixels, dark digits on white."""
    bank = digit_bank()
    canvas = np.full((scene.rows, CELL, scene.cols, CELL), 255, dtype=np.uint8)
    for place, cell in enumerate(scene.cells):
        if cell != BLANK:
            canvas[place // scene.cols, :, place % scene.cols, :] = 255 - bank.ink[cell]
    grey = canvas.reshape(scene.rows * CELL, scene.cols * CELL)
    return Image.fromarray(np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2)))


def held_out(n: int, seed: int = 0) -> list[Question]:
    """`n` questions about pictures of held-out digits, the two kinds in turn.

    Rows and columns are drawn from 1..8 each, so a picture has 1 to 64 visual tokens (20 on average). A pure function:
    the same arguments give the same questions and pixels everywhere, and fewer questions are a prefix of more.
    """
    draw = Draw(seed)
    questions = []
    for i in range(n):
        kind = KINDS[i % len(KINDS)]
        scene = draw_scene(draw, draw.between(1, MAX_SIDE), draw.between(1, MAX_SIDE), "held_out")
        text, answer, options = ask(draw, scene.shown(), kind)
        boxes = scene.boxes(asked_digit(text, answer, options))
        questions.append(Question(render(scene), text, answer, kind, options, boxes))
    return questions


def asked_digit(question: str, answer: str, options: Sequence[str] = ()) -> int:
    """The digit that a question of `ask` is about: the right option, or the one that may be there."""
    return int(options[LETTERS.index(answer)] if options else question.split()[3])
