"""A picture of some questions with the answers of every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from .digits import Question

SIDE, WIDTH, LINE, MARGIN = 224, 330, 17, 12  # pixels
COLUMNS, ROWS = 4, 2
GREEN, RED, GREY, BLACK = "#1a7f37", "#cf222e", "#888888", "#111111"


def draw_gallery(asked: Sequence[Question], answers: Mapping[str, Sequence[str]]) -> Image.Image:
    """The first questions as tiles: picture, question, right answer, then one line per model, green or red.

    Args:
        answers: model -> its answers, in the order of `asked`.
    """
    shown = list(asked)[: COLUMNS * ROWS]
    height = SIDE + LINE * (len(answers) + 4) + 2 * MARGIN
    sheet = Image.new("RGB", (COLUMNS * WIDTH, -(-len(shown) // COLUMNS) * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for i, question in enumerate(shown):
        x, y = i % COLUMNS * WIDTH + MARGIN, i // COLUMNS * height + MARGIN
        picture = question.image.copy()
        picture = picture.resize(_fit(picture.size), Image.Resampling.NEAREST)
        sheet.paste(picture, (x, y))
        draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=GREY)
        y += SIDE + 4
        for text in _wrapped(question.question):
            draw.text((x, y), text, fill=BLACK, font=font)
            y += LINE
        for name, given in answers.items():
            colour = GREEN if given[i] == question.answer else RED
            draw.text((x, y), f"{name}: {given[i] or '(nothing)'}", fill=colour, font=font)
            y += LINE
    return sheet


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    factor = SIDE / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _wrapped(text: str) -> list[str]:
    """A question on two lines at most: the sentence, and its options."""
    sentence, mark, options = text.partition("? ")
    return [sentence + "?", options] if mark and options else [text, ""]
