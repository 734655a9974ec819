"""Which part of the picture every visual token of a prompt shows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from ...patches import use_regions
from ...patches.errors import LostattnError
from ...patches.family import get_family
from ...patches.geometry import Fit, Size, token_rectangles
from ...serving.reading.videos import Clip
from ..chat import Chat
from .boxes import Box, check_inside


def read_fit(processor: Any) -> Fit:
    """How an image processor of the CLIP, SigLIP or LLaVA kind fits a picture into one square."""
    size, crop = getattr(processor, "size", None), getattr(processor, "crop_size", None)
    resize, cut = getattr(processor, "do_resize", True), getattr(processor, "do_center_crop", False)
    return Fit(
        pad=bool(getattr(processor, "do_pad", False)) and hasattr(processor, "pad_to_square"),
        shortest=_edge(size, "shortest_edge") if resize else None,
        stretch=_sides(size) if resize else None,
        crop=_sides(crop) if cut else None,
    )


def fit_of(chat: Chat) -> Any:
    """How the chat's processor fits pictures, in the form that its family reads."""
    read = get_family(chat.model.config.model_type).fit or read_fit
    return read(chat.processor.image_processor)


@contextmanager
def evidence(chat: Chat, picture: Image.Image | Clip, boxes: Sequence[Box] | None) -> Iterator[None]:
    """Let a patched model of mode `region` look at boxes in pixels of the picture; other models and no boxes: nothing."""
    if boxes is None or not chat.patched:
        yield
        return
    check_inside(boxes, picture.size)
    with use_regions(chat.model, [boxes], [picture.size], fit_of(chat)):
        yield


def _edge(size: Any, name: str) -> int | None:
    result = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
    return None if result is None else int(result)


def _sides(size: Any) -> Size | None:
    width, height = _edge(size, "width"), _edge(size, "height")
    return None if width is None or height is None else (width, height)


def encoder_arguments(chat: Chat, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What of a prompt's inputs the image encoder gets."""
    wanted = inspect.signature(chat.model.model.get_image_features).parameters
    return {k: v for k, v in inputs.items() if k in wanted}


def place_tokens(chat: Chat, inputs: dict[str, torch.Tensor], size: Size) -> torch.Tensor:
    """Rectangles of a one-image prompt's visual tokens, (n, 4) in fractions of the picture; see `patches.geometry`.

    Args:
        size: (width, height) of the original picture.

    Raises:
        LostattnError: the rectangles are not as many as the visual tokens.
    """
    tokens = int((inputs["input_ids"][0] == chat.model.config.image_token_id).sum())
    result = token_rectangles(chat.model.model, encoder_arguments(chat, inputs), [size], fit_of(chat))[0]
    if len(result) != tokens:
        raise LostattnError(
            f"the prompt has {tokens} visual tokens but the picture makes {len(result)}: the processor does not fit the model"
        )
    return result
