"""The prior of images and videos where vLLM encodes them, and how it travels: as extra channels of the embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ....patches.context import EncoderCall
from ....patches.errors import LostattnError
from ....patches.family import get_family
from ....patches.features import image_features, standardised
from ....patches.mode import get_mode
from ....patches.plan import Pixels, Plan
from ....patches.scores import rescale_unit, shape_prior
from ....patches.tap import Tap

BYTES = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0)


def item_scores(
    plan: Plan,
    inner: Any,
    pixels: torch.Tensor,
    arguments: Mapping[str, Any],
    lengths: Sequence[int],
    tap: Tap | None,
    kind: str = "image",
) -> list[torch.Tensor]:
    """Scores p of the images or videos of one encoder call, as `patches.inner` makes them in transformers.

    Args:
        inner: has what the family reads of a model: `config`, and `pack_image_features` where tiles are put together.
        pixels: as the image processor normalises them, or bytes, uint8, that are normalised later.
        lengths: visual tokens of every image or video.
        arguments: by the names of transformers or of the family's functions.
        tap: has listened to the vision tower, if the plan's mode needs that.
        kind: `image` or `video`.

    Returns:
        one (n,) float32 tensor per image or video; for scores rule `fitted` (n, 1 + F), see `features.image_features`.
    """
    if pixels.dtype == torch.uint8:
        plan = replace(plan, pixels=BYTES, video_pixels=None)
    family = get_family(plan.family).of(kind)
    call = EncoderCall(family, plan, inner, pixels, family.arguments_of(arguments), lengths, tap)
    given = [w.float() for w in get_mode(plan.mode).weights(call)]
    if plan.scores == "fitted":
        pairs = zip(given, call.places(), strict=True)
        results = [image_features(standardised(w), place, plan) for w, place in pairs]
    else:
        results = [shape_prior(w, plan) for w in given]
    if plan.scores == "prob_rescaled":
        results = [rescale_unit(p) for p in results]
    if not all(bool(torch.isfinite(p).all()) for p in results):
        raise LostattnError(
            f"the prior of {'a video' if kind == 'video' else 'an image'} is not finite: its pixels hold NaN"
        )
    return results


def channels(dtype: torch.dtype) -> int:
    """Channels of an embedding that carry one float32 bit by bit."""
    return torch.float32.itemsize // dtype.itemsize


def append_scores(embeddings: Sequence[torch.Tensor], scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Embeddings (n, hidden) of every image with its scores, (n,) or (n, c), behind them, bit for bit."""
    return tuple(
        torch.cat([e, p.to(e.device).reshape(len(p), -1).contiguous().view(e.dtype)], 1)
        for e, p in zip(embeddings, scores, strict=True)
    )


def split_scores(embedding: torch.Tensor, columns: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """An image's embeddings (n, hidden) without the extra channels, and its scores (n, columns) float32."""
    count = columns * channels(embedding.dtype)
    return embedding[:, :-count], embedding[:, -count:].contiguous().view(torch.float32)
