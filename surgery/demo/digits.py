"""The demo's task: questions about pictures of handwritten digits on paper.

A picture is a grid of cells, 56 pixels a side. A cell is two by two visual tokens of a Qwen2.5-VL vision tower with 14-pixel
patches merged 2 x 2, so no single token holds a digit. Few cells hold a digit (dark ink); the others are paper with its
tone, its shade and its grain, and some have faint strokes. Five kinds of questions, and a sixth,
count, which the model is taught but not asked, because it answers 88 % of them:

    presence  "Is there a 7?"                                  -> "yes" or "no"
    choice    "Which of these is there? A. 3 B. 5 C. 7 D. 9"   -> the letter of the one that is
    count     "How many 3s?"                                   -> "0" to "5"
    largest   "What is the largest digit?"                     -> that digit
    right     "What is right of the 7?"                        -> the digit in the next cell of the row
    read      "Read on from the 7."                            -> the digits that follow it, "35"

The digits are scikit-learn's copy of the UCI test set "Optical Recognition of Handwritten Digits" (CC BY 4.0). Every fifth
is held out, the other 1437 are for training. Everything random comes from `random.Random.random` and the raw numbers of
NumPy's PCG64, the two streams that Python and NumPy promise to keep, and the pixels from integer arithmetic: the same
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

TOKEN = 28  # pixels a side of what one visual token covers
CELL = 2 * TOKEN  # pixels a side of a cell
MAX_SIDE = 8  # cells a side: at most 256 visual tokens
SHAPES = (
    (3, 3),
    (4, 4),
    (5, 5),
    (8, 8),
)  # rows and columns of the demo's pictures: 36 to 256 visual tokens, 114 on average
MAX_DIGITS = 9  # digits shown in one picture
MAX_CLASSES = 7  # different digits shown in one picture: three are left to be wrong options
MAX_RUN = 3  # digits side by side when a picture is laid out
MAX_COUNT = 5  # the most that "How many" asks for
BLANK = -1
LETTERS = ("A", "B", "C", "D")
KINDS = ("presence", "choice", "largest", "right", "read")
TAUGHT = ("presence", "choice", "count", "largest", "right", "read")  # counting is taught, and comes to 88 % only
HELD_OUT = 5  # every fifth digit
DIGITS_FILE = Path(__file__).parent / "digits.safetensors"
GRAIN = 4  # pixels a side of a grain of the paper

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes:
        question: the complete text that the model sees beside the picture.
        boxes: (x, y, width, height) of the evidence in pixels: the cells of the digits that the answer is about; if none of
            them is there, of all digits, for only they together show that.
    """

    image: Image.Image
    question: str
    answer: str
    kind: str
    options: tuple[str, ...] = ()
    boxes: tuple[tuple[int, int, int, int], ...] = ()


class Asked(NamedTuple):
    """A question's text, its answer, its options, and the places (cell numbers) that show the answer."""

    question: str
    answer: str
    options: tuple[str, ...] = ()
    places: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scene:
    """Which digit stands in which cell: `cells` is row-major, an index into the digit bank or `BLANK`; `paper` draws the rest."""

    rows: int
    cols: int
    cells: tuple[int, ...]
    paper: int = 0

    @functools.cached_property
    def labels(self) -> tuple[int, ...]:
        """The digit 0..9 of every cell, or `BLANK`."""
        bank = digit_bank().labels
        return tuple(BLANK if cell == BLANK else int(bank[cell]) for cell in self.cells)

    def shown(self) -> list[int]:
        """The different digits 0..9 that the picture shows, ascending."""
        return sorted(set(self.labels) - {BLANK})

    def places(self, digit: int) -> tuple[int, ...]:
        """Numbers of the cells that show a digit."""
        return tuple(place for place, label in enumerate(self.labels) if label == digit)

    def follow(self, place: int) -> tuple[int, ...]:
        """Numbers of the cells to the right of a cell, up to the first without a digit or the end of the row."""
        end = (place // self.cols + 1) * self.cols
        results = []
        for after in range(place + 1, end):
            if self.labels[after] == BLANK:
                break
            results.append(after)
        return tuple(results)

    def boxes(self, places: Sequence[int]) -> tuple[tuple[int, int, int, int], ...]:
        """Cells in pixels; of all digits if there are none."""
        places = places or [place for place, label in enumerate(self.labels) if label != BLANK]
        return tuple((p % self.cols * CELL, p // self.cols * CELL, CELL, CELL) for p in places)


class DigitBank(NamedTuple):
    """All digits: `ink` is uint8 (1797, 56, 56), 0 paper to 255 full ink; `labels` is uint8 (1797,)."""

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
    """Read the packaged digits and enlarge each to a cell: 8 x 8 -> 48 x 48, bilinear, with a margin of 4 pixels."""
    tensors = load_file(DIGITS_FILE)
    images = tensors["images"].astype(np.int64)  # (1797, 8, 8), 0..16
    weights = np.zeros((48, 8), dtype=np.int64)  # bilinear weights in twelfths: integers, so every platform agrees
    for i in range(48):
        whole, part = divmod(2 * i - 5, 12)
        weights[i, min(max(whole, 0), 7)] += 12 - part
        weights[i, min(max(whole + 1, 0), 7)] += part
    large = weights @ images @ weights.T  # (1797, 48, 48), 0..16*144
    ink = np.zeros((len(images), CELL, CELL), dtype=np.uint8)
    ink[:, 4:-4, 4:-4] = (large * 255 + 1152) // 2304
    return DigitBank(ink, tensors["labels"])


@functools.lru_cache(maxsize=2)
def by_label(split: str) -> tuple[tuple[int, ...], ...]:
    """Bank indices of a split ("train" or "held_out"), one tuple for each digit 0..9."""
    labels = digit_bank().labels
    own = [i for i in range(len(labels)) if (i % HELD_OUT == HELD_OUT - 1) == (split == "held_out")]
    return tuple(tuple(i for i in own if labels[i] == digit) for digit in range(10))


def draw_scene(draw: Draw, rows: int, cols: int, split: str) -> Scene:
    """A picture of `rows` x `cols` cells with 1 to 7 different digits of the split, up to 9 in all, in runs of 1 to 3."""
    n_cells = rows * cols
    places = _lay_out(draw, rows, cols, draw.between(1, min(MAX_DIGITS, -(-2 * n_cells // 3))))
    n_classes = draw.between(1, min(MAX_CLASSES, len(places)))
    classes = draw.some(range(10), n_classes)
    again = draw.some(classes, min(n_classes, 2))  # the digits that come more than once
    labels = classes + [draw.one(again) for _ in range(len(places) - n_classes)]
    labels = draw.some(labels, len(labels))
    cells = [BLANK] * n_cells
    for place, label in zip(places, labels, strict=True):
        cells[place] = draw.one(by_label(split)[label])
    return Scene(rows, cols, tuple(cells), draw.below(1 << 30))


def _lay_out(draw: Draw, rows: int, cols: int, n_digits: int) -> list[int]:
    """Cell numbers for `n_digits`: runs of up to three side by side."""
    free = [True] * (rows * cols)
    places: list[int] = []
    while len(places) < n_digits:
        start = draw.one([place for place, empty in enumerate(free) if empty])
        for place in range(start, min(start + draw.between(1, MAX_RUN), (start // cols + 1) * cols)):
            if len(places) < n_digits and free[place]:
                free[place] = False
                places.append(place)
    return places


def ask(draw: Draw, scene: Scene, kind: str) -> Asked | None:
    """A question of this kind about a picture; None where the picture has no answer to such a question."""
    return _ASK[kind](draw, scene)


def _ask_presence(draw: Draw, scene: Scene) -> Asked:
    shown, answer = scene.shown(), draw.one(("yes", "no"))
    digit = draw.one(shown if answer == "yes" else [d for d in range(10) if d not in shown])
    return Asked(f"Is there a {digit}?", answer, (), scene.places(digit))


def _ask_choice(draw: Draw, scene: Scene) -> Asked:
    shown, place = scene.shown(), draw.below(len(LETTERS))
    digits = draw.some([d for d in range(10) if d not in shown], len(LETTERS) - 1)
    right = draw.one(shown)
    digits.insert(place, right)
    options = tuple(str(digit) for digit in digits)
    listed = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
    return Asked(f"Which of these is there? {listed}", LETTERS[place], options, scene.places(right))


def _ask_count(draw: Draw, scene: Scene) -> Asked | None:
    shown = scene.shown()
    if draw.chance(0.1):
        digit = draw.one([d for d in range(10) if d not in shown])
    else:
        most = max(shown, key=lambda d: len(scene.places(d)))
        digit = most if draw.chance(0.5) else draw.one(shown)
    places = scene.places(digit)
    return Asked(f"How many {digit}s?", str(len(places)), (), places) if len(places) <= MAX_COUNT else None


def _ask_largest(draw: Draw, scene: Scene) -> Asked:
    digit = scene.shown()[-1]
    return Asked("What is the largest digit?", str(digit), (), scene.places(digit))


def _ask_right(draw: Draw, scene: Scene) -> Asked | None:
    starts = [p for p in map(scene.places, scene.shown()) if len(p) == 1 and scene.follow(p[0])]
    if not starts:
        return None
    start = draw.one(starts)[0]
    after = scene.follow(start)[0]
    return Asked(f"What is right of the {scene.labels[start]}?", str(scene.labels[after]), (), (start, after))


def _ask_read(draw: Draw, scene: Scene) -> Asked | None:
    """From a digit that is there once, through digits that are there once: the last alone may come again."""
    once = {p[0] for p in map(scene.places, scene.shown()) if len(p) == 1}
    runs = [(start, scene.follow(start)) for start in sorted(once)]
    runs = [(start, run) for start, run in runs if 1 <= len(run) <= 2 and once.issuperset(run[:-1])]
    if not runs:
        return None
    longest = [r for r in runs if len(r[1]) == 2]
    start, run = draw.one(longest if longest and draw.chance(0.7) else runs)
    answer = "".join(str(scene.labels[p]) for p in run)
    return Asked(f"Read on from the {scene.labels[start]}.", answer, (), (start, *run))


_ASK = {
    "presence": _ask_presence,
    "choice": _ask_choice,
    "count": _ask_count,
    "largest": _ask_largest,
    "right": _ask_right,
    "read": _ask_read,
}


def paper(seed: int, rows: int, cols: int) -> np.ndarray:
    """Blank paper, int64 (rows * 56, cols * 56), 0 to 255: tone, shade over the sheet, grain, faint strokes in some cells."""
    height, width = rows * CELL, cols * CELL
    grains = (height // GRAIN) * (width // GRAIN)
    raw = np.random.PCG64(seed).random_raw(8 + rows * cols + grains).astype(np.uint64)
    small = (raw >> np.uint64(40)).astype(np.int64)  # 24 random bits of each
    tone, slope_y, slope_x, rough, faint = (
        170 + small[0] % 70,
        small[1] % 61 - 30,
        small[2] % 61 - 30,
        1 + small[3] % 14,
        small[4],
    )
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    sheet = tone + slope_y * (2 * y - height) // (2 * height) + slope_x * (2 * x - width) // (2 * width)
    grain = (small[8 + rows * cols :] % (2 * rough + 1) - rough).reshape(height // GRAIN, width // GRAIN)
    sheet = sheet + np.repeat(np.repeat(grain, GRAIN, 0), GRAIN, 1)
    for place, number in enumerate(small[8 : 8 + rows * cols]):
        if (number + faint) % 4 == 0:
            _stroke(sheet, place // cols * CELL, place % cols * CELL, int(number) // 4)
    return sheet


def _stroke(sheet: np.ndarray, top: int, left: int, number: int) -> None:
    """A faint straight stroke, 3 pixels wide, in the cell at (top, left); `number` says where and how dark."""
    (x0, number), (x1, number) = (number % 41, number // 41), (number // 41 % 41, number // 41 // 41)
    (y0, number), (y1, number) = (number % 41, number // 41), (number // 41 % 41, number // 41 // 41)
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    for i in range(0, steps + 1):
        row, col = top + 7 + y0 + (y1 - y0) * i // steps, left + 7 + x0 + (x1 - x0) * i // steps
        sheet[row : row + 2, col : col + 2] = np.minimum(sheet[row : row + 2, col : col + 2], sheet[top, left] - 30)


def put_ink(sheet: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Ink (0 to 255) on paper: uint8 of the same shape. Full ink leaves a tenth of the paper's light."""
    return np.clip(sheet * (2550 - 9 * ink.astype(np.int64)) // 2550, 0, 255).astype(np.uint8)


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, `cols` * 56 x `rows` * 56 pixels, dark digits on grey paper."""
    bank = digit_bank()
    ink = np.zeros((scene.rows, CELL, scene.cols, CELL), dtype=np.uint8)
    for place, cell in enumerate(scene.cells):
        if cell != BLANK:
            ink[place // scene.cols, :, place % scene.cols, :] = bank.ink[cell]
    grey = put_ink(paper(scene.paper, scene.rows, scene.cols), ink.reshape(scene.rows * CELL, scene.cols * CELL))
    return Image.fromarray(np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2)))


def held_out(
    n: int, seed: int = 0, shapes: Sequence[tuple[int, int]] = SHAPES, kinds: Sequence[str] = KINDS
) -> list[Question]:
    """`n` questions about pictures of held-out digits, the kinds in turn.

    A pure function: the same arguments give the same questions and pixels everywhere, and fewer questions are a prefix of more.

    Args:
        shapes: rows and columns of cells to draw from; few, because pictures of one shape are answered together.
            Empty: 2 to 8 of each.
    """
    draw = Draw(seed)
    questions = []
    for i in range(n):
        kind, asked = kinds[i % len(kinds)], None
        while asked is None:
            rows, cols = draw.one(shapes) if shapes else (draw.between(2, MAX_SIDE), draw.between(2, MAX_SIDE))
            scene = draw_scene(draw, rows, cols, "held_out")
            asked = ask(draw, scene, kind)
        text, answer, options, places = asked
        questions.append(Question(render(scene), text, answer, kind, options, scene.boxes(places)))
    return questions
