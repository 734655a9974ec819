"""A video as one picture: its frames beside each other, and every visual token in the frame that it shows."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from PIL import Image

from ...patches.family import get_family
from ...patches.geometry import Size
from ...serving.reading.videos import Clip
from ..chat import Chat

GAP = 4  # pixels between frames


def video_arguments(chat: Chat, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What of a prompt's inputs the family's functions know of its video, by their names.

    Raises:
        LostattnError: the family has no videos, or takes their frames as pictures.
    """
    family = get_family(chat.model.config.model_type).of("video")
    wanted = inspect.signature(chat.model.model.get_video_features).parameters
    result = family.arguments_of({k: v for k, v in inputs.items() if k in wanted and k != "pixel_values_videos"})
    return {**result, "pixel_values": inputs["pixel_values_videos"]}


def steps_of(inputs: dict[str, torch.Tensor]) -> int:
    """How many frames, or groups of frames that one token covers, the one video of a prompt has."""
    grid = inputs.get("video_grid_thw")
    return inputs["pixel_values_videos"].shape[1] if grid is None else int(grid[0, 0])


def contact_sheet(clip: Clip, steps: int) -> Image.Image:
    """The first frame of every step, row by row."""
    columns, rows = _shape(steps, clip.size)
    wide, high = clip.size
    sheet = Image.new("RGB", (columns * (wide + GAP) - GAP, rows * (high + GAP) - GAP), "white")
    pictures, each = clip.pictures(), math.ceil(len(clip.frames) / steps)
    for step in range(steps):
        frame = pictures[min(step * each, len(pictures) - 1)]
        sheet.paste(frame, (step % columns * (wide + GAP), step // columns * (high + GAP)))
    return sheet


def place_on_sheet(chat: Chat, inputs: dict[str, torch.Tensor], size: Size) -> torch.Tensor:
    """Rectangles of the visual tokens of a one-video prompt, (n, 4) in fractions of the sheet; NaN for line breaks.

    Args:
        size: (width, height) of a frame.
    """
    steps = steps_of(inputs)
    family = get_family(chat.model.config.model_type).of("video")
    inside = family.rectangles(chat.model.model, video_arguments(chat, inputs), [size], None)[0]
    columns, rows = _shape(steps, size)
    shown = (~inside[:, 0].isnan()).nonzero()[:, 0]
    step = torch.zeros(len(inside), dtype=torch.int64)
    step[shown] = torch.arange(len(shown)) * steps // len(shown)
    wide, high = columns * (size[0] + GAP) - GAP, rows * (size[1] + GAP) - GAP
    left, top = step % columns * (size[0] + GAP), step // columns * (size[1] + GAP)
    start = torch.stack([left, top, left, top], 1).double()
    scale = torch.tensor([size[0], size[1], size[0], size[1]]).double()
    return (start + inside * scale) / torch.tensor([wide, high, wide, high]).double()


def _shape(steps: int, size: Size) -> tuple[int, int]:
    """Columns and rows that make the sheet about as wide as high."""
    columns = min(steps, max(1, round(math.sqrt(steps * size[1] / size[0]))))
    return columns, math.ceil(steps / columns)
