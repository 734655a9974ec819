"""What the tiny models share whose pixels come as rows of patches: Qwen-VL and GLM-V."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import IMAGE, VIDEO, Inputs, TinyVideos

IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 152, "vision_end_token_id": 153}
PLACEHOLDER = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO_GRIDS = [[3, 4, 4], [2, 8, 2]]  # 4 tokens a step
GRIDS = [[1, 8, 6], [1, 4, 12], [1, 24, 2]]  # 12 tokens each
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "out_hidden_size": 64,
    "initializer_range": 0.2,
}


def rope(*section: int) -> dict[str, Any]:
    """Rotary parameters for heads of twice the sum of a section."""
    return {"rope_type": "default", "mrope_section": list(section), "rope_theta": 10000.0}


def rows_inputs(patch: int) -> Callable[[torch.Tensor, int, torch.Generator], Inputs]:
    """Images of 48 patches, 12 tokens, in several shapes; the first is 8 x 6 patches."""

    def inputs(input_ids: torch.Tensor, images: int, g: torch.Generator) -> Inputs:
        return {
            "pixel_values": torch.randn(images * 48, 3 * 2 * patch**2, generator=g),
            "image_grid_thw": torch.tensor([GRIDS[i % len(GRIDS)] for i in range(images)]),
            "mm_token_type_ids": (input_ids == IMAGE).int(),
        }

    return inputs


def serve_qwen(config: Any, number: Any) -> None:
    """Qwen's special tokens."""
    config.image_token_id, config.video_token_id = number("<|image_pad|>"), number("<|video_pad|>")
    config.vision_start_token_id, config.vision_end_token_id = number("<|vision_start|>"), number("<|vision_end|>")


def received_rows(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
    """The last layer attends image by image; four consecutive patches are one token."""
    found = []
    for w in weights[-len(inputs["image_grid_thw"]) :]:
        blocks = w[0].unflatten(2, (-1, 4)).unflatten(1, (-1, 4))
        found.append((blocks.amax((2, 4)) if pool == "max" else blocks.mean((2, 4))).mean((0, 1)))
    return found


def rows_videos(patch: int, timed: bool, token: int = VIDEO, received: Any = None) -> TinyVideos:
    """Videos of three and of two steps of two frames each; with timestamps every step is a run of its own."""

    def inputs(videos: int, g: torch.Generator) -> Inputs:
        grids = [VIDEO_GRIDS[i % 2] for i in range(videos)]
        rows = sum(t * h * w for t, h, w in grids)
        return {
            "pixel_values_videos": torch.randn(rows, 3 * 2 * patch**2, generator=g),
            "video_grid_thw": torch.tensor(grids),
        }

    runs = ((4, 4, 4), (4, 4)) if timed else ((12,), (8,))
    return TinyVideos(runs, inputs, received or received_steps, token)


def received_steps(config: Any, inputs: Inputs, weights: list[torch.Tensor], pool: str) -> list[torch.Tensor]:
    """The last layer attends step by step of every video."""
    steps = inputs["video_grid_thw"][:, 0].tolist()
    each = {"image_grid_thw": torch.zeros(sum(steps))}
    found = received_rows(config, each, weights, pool)
    return [torch.cat(found[sum(steps[:i]) : sum(steps[: i + 1])]) for i in range(len(steps))]
