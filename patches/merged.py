"""Helpers of the families whose `pixel_values` are rows of patches, m x m of them one token (Qwen-VL, GLM-V)."""

from __future__ import annotations

from typing import Any

import torch

from .family import Arguments, Videos, last_attention
from .pixels import normalised_to_gray, patch_complexity
from .plan import Pixels
from .tap import Tap


def split_rows(inner: Any, pixel_values: torch.Tensor, arguments: Arguments) -> list[torch.Tensor]:
    """Rows are flattened patches (C, T, P, P), each m*m of them one token: per image (n, m*m, T, 3, P, P)."""
    vision = inner.config.vision_config
    size, merge = vision.patch_size, vision.spatial_merge_size**2
    rows = pixel_values.view(-1, merge, vision.in_channels, vision.temporal_patch_size, size, size).transpose(2, 3)
    return list(rows.split(_lengths(inner, arguments)))


def merged_complexity(
    inner: Any, images: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """Complexity of the m P x m P pixels that a token covers (an image's temporal copies are equal: the first counts)."""
    merge = inner.config.vision_config.spatial_merge_size
    return [_frame_complexity(image[:, :, 0], merge, pixels) for image in images]


def frames_complexity(
    inner: Any, videos: list[torch.Tensor], arguments: Arguments, pixels: Pixels | None
) -> list[torch.Tensor]:
    """The same for videos, whose tokens cover T frames each: the mean of each frame's complexity."""
    merge = inner.config.vision_config.spatial_merge_size
    return [torch.stack([_frame_complexity(f, merge, pixels) for f in v.unbind(2)]).mean(0) for v in videos]


def _frame_complexity(frame: torch.Tensor, merge: int, pixels: Pixels | None) -> torch.Tensor:
    """Of the m*m patches of every token in one frame (n, m*m, 3, P, P)."""
    gray = normalised_to_gray(frame, pixels)  # (n, m*m, P, P)
    return patch_complexity(gray.unflatten(1, (merge, merge)).transpose(2, 3).flatten(3, 4).flatten(1, 2))


def merged_tap(inner: Any, pool: str) -> Tap:
    """Listen to the last vision block, whose patches stand merge block by merge block."""
    return Tap(last_attention(inner.visual), inner.config.vision_config.spatial_merge_size**2, pool)


def received_by_blocks(
    inner: Any, tap: Tap, arguments: Arguments, order: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """Mean attention that every merge block receives from the blocks of its attention, which is one image's or, in videos,
    those of the frames that the tower encodes together.

    Args:
        order: number of the token in the tower's order, for every token in the decoder's order, int64 (n of all images,);
            None if the tower keeps the decoder's order.
    """
    sums = torch.cat([x[0] for x in tap.received])
    if order is not None:
        sums = sums[order.to(sums.device)]
    steps = arguments["image_grid_thw"][:, 0].tolist()
    return [x / (len(x) / int(t)) for x, t in zip(sums.split(_lengths(inner, arguments)), steps, strict=True)]


def _lengths(inner: Any, arguments: Arguments) -> list[int]:
    """Visual tokens of every image or video."""
    merge = inner.config.vision_config.spatial_merge_size**2
    return [int(n) // merge for n in arguments["image_grid_thw"].prod(-1).tolist()]


ROW_VIDEOS = Videos(complexity=frames_complexity)
# GLM-V places a video's frames by image tokens.
GLM_VIDEOS = Videos(token="image_token_id", complexity=frames_complexity)
