"""Priors that a researcher brings along instead of a mode's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from .errors import LostattnError
from .plan import one_of

KINDS = ("weights", "prior", "scores")


@dataclass(frozen=True)
class Supplied:
    """Numbers for the images and `videos` of the next calls of one model; `mask` (B, S) says where they lie in embeddings."""

    model: torch.nn.Module
    tensors: tuple[torch.Tensor, ...]
    kind: str
    mask: torch.Tensor | None = None
    videos: tuple[torch.Tensor, ...] = ()

    def for_lengths(self, lengths: Sequence[int], what: str = "image") -> list[torch.Tensor]:
        """The numbers as float32, checked against the images of a call, or against its videos (`image`, `video`).

        Raises:
            LostattnError: another number of images or of visual tokens.
        """
        tensors = self.videos if what == "video" else self.tensors
        if len(tensors) != len(lengths):
            raise LostattnError(
                f"use_prior got {len(tensors)} tensors but this call has {len(lengths)} {what}s: give one per {what}"
            )
        for i, (tensor, length) in enumerate(zip(tensors, lengths, strict=True)):
            if tensor.numel() != length:
                raise LostattnError(
                    f"use_prior: {what} {i} has {length} visual tokens but its tensor has {tensor.numel()}"
                )
        return [t.detach().float() for t in tensors]

    def for_count(self, tokens: int) -> list[torch.Tensor]:
        """The numbers as float32, checked against the visual tokens of embeddings that already hold the images.

        Raises:
            LostattnError: another number of visual tokens.
        """
        if (given := sum(t.numel() for t in self.tensors)) != tokens:
            raise LostattnError(f"use_prior got {given} numbers but the embeddings hold {tokens} visual tokens")
        return [t.detach().float() for t in self.tensors]


_SUPPLIED_PRIORS: ContextVar[tuple[Supplied, ...]] = ContextVar("lostattn_supplied_prior", default=())


def supplied_for(inner: torch.nn.Module) -> Supplied | None:
    """What the innermost `use_prior` supplies to the model whose inner model this is, if anything."""
    result = (
        s for s in reversed(_SUPPLIED_PRIORS.get()) if s.model is inner or getattr(s.model, "model", None) is inner
    )
    return next(result, None)


def slot_of(model: torch.nn.Module, what: str) -> ContextVar[tuple[Any, ...]]:
    """Where a model looks for what callers supply: `prior` or `regions`. A checkpoint may bring a copy of this code."""
    slots = getattr(type(model), "sap_slots", None)
    if slots is None:
        raise LostattnError(f"use_{what} needs a patched model: load one with lostattn.patches.load_patched")
    return slots[what]


@contextmanager
def use_prior(
    model: torch.nn.Module,
    tensors: Sequence[torch.Tensor],
    kind: str = "weights",
    mask: torch.Tensor | None = None,
    videos: Sequence[torch.Tensor] = (),
) -> Iterator[None]:
    """Supply the prior of the next calls instead of computing it. Holds for the thread that opens the block.

    Args:
        model: a patched model.
        tensors: one 1-D float tensor per image of the batch, in prompt order, one number per visual token
            (line-break tokens of LLaVA-NeXT and OneVision included).
        kind: `weights` = w, the scores rule still applies; `prior` = what the scores rule makes of w before any
            rescaling by measured scores (for preset `reference`: the probability vector); `scores` = p exactly as
            injected, neither rescaled nor levelled.
        mask: visual tokens of a prompt that is given as `inputs_embeds` with the features in place, bool (B, S); then
            `tensors` are those of images and videos alike, in prompt order.
        videos: the same as `tensors`, one per video of the batch.

    Raises:
        LostattnError: not a patched model, unknown kind, tensors that are not 1-D, finite and float, a mask that is not
            bool (B, S), or (at the call) wrong counts and lengths.

    Example:
        >>> with use_prior(model, [torch.rand(54)]):
        ...     model.generate(**inputs)
    """
    slot = slot_of(model, "prior")
    one_of("kind of prior", kind, KINDS)
    if isinstance(tensors, torch.Tensor):
        raise LostattnError("use_prior needs a list with one 1-D float tensor per image, not one tensor")
    tensors, videos = tuple(tensors), tuple(videos)
    for what, given in (("image", tensors), ("video", videos)):
        for i, tensor in enumerate(given):
            if not isinstance(tensor, torch.Tensor) or tensor.dim() != 1 or not tensor.is_floating_point():
                raise LostattnError(f"use_prior needs a list of 1-D float tensors; entry {i} is none")
            if not bool(torch.isfinite(tensor.float()).all()):
                raise LostattnError(
                    f"use_prior: the tensor of {what} {i} holds NaN, infinity or numbers beyond float32"
                )
    if mask is not None and (not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool or mask.dim() != 2):
        raise LostattnError("use_prior: the mask of visual tokens is a bool tensor (batch, tokens)")
    token = slot.set((*slot.get(), Supplied(model, tensors, kind, mask, videos)))
    try:
        yield
    finally:
        slot.reset(token)
