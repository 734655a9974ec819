"""Marking boxes in pictures and seeing which image features move, to find what every visual token shows."""

from __future__ import annotations

import tiny
import torch
from PIL import Image

NEAREST = {"resample": 0, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"height": 56, "width": 56}


def noise(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())


def marked(image, box):
    """The picture with other colours inside a box of whole pixels."""
    x, y, w, h = box
    out = image.copy()
    out.paste(image.crop((x, y, x + w, y + h)).point(lambda v: 255 - v), (x, y))
    return out


def deaf(model):
    """A model whose vision layers do nothing: an image feature depends on the pixels of its own token alone."""
    for layer in next(
        m for n, m in tiny.tower_of(model).named_modules() if n.split(".")[-1] in ("blocks", "layers", "layer")
    ):
        layer.forward = lambda hidden_states, *args, **kwargs: hidden_states
    return model


def eroded(box, pixel):
    x, y, w, h = box
    return (x + pixel[0], y + pixel[1], w - 2 * pixel[0], h - 2 * pixel[1])
