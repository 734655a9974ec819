"""What to say when a model's processor cannot use pictures: the same sentence from every command and from a server."""

from __future__ import annotations

from collections.abc import Sequence

from .cause import cause

SHOWN = 4  # sizes


def unusable_pictures(sizes: Sequence[tuple[int, int]], error: BaseException) -> str:
    """One sentence with the sizes (width, height) of the pictures and the processor's own reason."""
    listed = ", ".join(f"{width} x {height}" for width, height in sizes[:SHOWN])
    listed += f" and {len(sizes) - SHOWN} more" * (len(sizes) > SHOWN)
    which = f"this picture of {listed} pixels" if len(sizes) == 1 else f"these pictures of {listed} pixels"
    if not sizes:
        which = "what was sent"
    return (
        f"the model's processor cannot use {which} with this question ({cause(error)}): take another picture, and leave "
        "special tokens out of the question"
    )
