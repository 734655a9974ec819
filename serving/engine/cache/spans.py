"""Where the visual tokens of a request lie, and what that means for its cache blocks. Plain numbers, no tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

VISUAL = ("image", "video")  # what vLLM calls the kinds of items that have a prior
Span = tuple[int, int]  # first visual position, position behind the last


class RequestInfo(NamedTuple):
    """A request of the batch: its id, where its images and videos lie, and how many tokens its prompt has."""

    request_id: str
    spans: tuple[Span, ...]
    prompt: int


def visual_spans(features: Iterable[Any] | None) -> tuple[Span, ...]:
    """Spans of a request's image and video tokens, ascending, from vLLM's multimodal features; neighbours stay apart. A video
    whose timestamps stand between its frames has a span for each of them.
    """
    results: list[Span] = []
    for feature in features or ():
        if feature.modality in VISUAL:
            results += [(first, last + 1) for first, last in feature.mm_position.extract_embeds_range()]
    return tuple(sorted(results))


def is_hole(spans: Sequence[Span], size: int, block: int) -> bool:
    """True if block number `block` of `size` tokens takes no memory in a whole group.

    It lies inside one image, so it holds no text, and neither the image's last token nor is it the block in front of that
    one: another question about the same image finds its summary there.
    """
    first, end = block * size, (block + 1) * size
    return any(a <= first and end + size < b for a, b in spans)


def holes(spans: Sequence[Span], size: int, first: int, end: int) -> list[bool]:
    """`is_hole` of the blocks first..end-1."""
    out = [False] * max(end - first, 0)
    for a, b in spans:
        low, high = max(-(-a // size), first), min((b - 1) // size - 1, end)
        for block in range(low, high):
            out[block - first] = True
    return out


def visual_mask(spans: Sequence[Span], end: int, start: int = 0) -> np.ndarray:
    """Visual positions among start..end-1, bool (end - start,)."""
    mask = np.zeros(end - start, dtype=bool)
    for a, b in spans:
        mask[max(a - start, 0) : max(min(b, end) - start, 0)] = True
    return mask


def last_visual(spans: Sequence[Span], end: int) -> int:
    """The last visual position below `end`, or -1."""
    return max((min(b, end) - 1 for a, b in spans if a < end), default=-1)


def text_before(spans: Sequence[Span], end: int) -> int:
    """Number of text positions below `end`."""
    return end - sum(min(b, end) - a for a, b in spans if a < end)
