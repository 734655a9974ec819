"""Deciding, cutting, shipping: from a checkpoint and options to a patched checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .patch import patch_checkpoint as patch_checkpoint

__all__ = ["patch_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line must not wait for torch before it knows what to do."""
    if name == "patch_checkpoint":
        from .patch import patch_checkpoint

        return patch_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
