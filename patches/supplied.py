"""Priors that a researcher brings along instead of a mode's."""

from __future__ import annotations

import sys
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
    """Numbers for the images of the next encoder calls of one model."""

    model: torch.nn.Module
    tensors: tuple[torch.Tensor, ...]
    kind: str

    def for_lengths(self, lengths: Sequence[int]) -> list[torch.Tensor]:
        """The numbers as float32, checked against the images of a call.

        Raises:
            LostattnError: another number of images or of visual tokens.
        """
        if len(self.tensors) != len(lengths):
            raise LostattnError(
                f"use_prior got {len(self.tensors)} tensors but this call has {len(lengths)} images: give one per image"
            )
        for i, (tensor, length) in enumerate(zip(self.tensors, lengths, strict=True)):
            if tensor.numel() != length:
                raise LostattnError(
                    f"use_prior: image {i} has {length} visual tokens but its tensor has {tensor.numel()}"
                )
        return [t.detach().float() for t in self.tensors]


_SUPPLIED: ContextVar[tuple[Supplied, ...]] = ContextVar("lostattn_supplied_prior", default=())


def supplied_for(inner: torch.nn.Module) -> Supplied | None:
    """What the innermost `use_prior` supplies to the model whose inner model this is, if anything."""
    found = (s for s in reversed(_SUPPLIED.get()) if s.model is inner or getattr(s.model, "model", None) is inner)
    return next(found, None)


def slot_of(model: torch.nn.Module, module: str) -> ContextVar[tuple[Any, ...]]:
    """`_SUPPLIED` of the copy of a module of this package that the model looks at: a checkpoint may bring copies."""
    package = type(model).__module__.rpartition(".")[0]
    copy = sys.modules.get(f"{package}.{module.rpartition('.')[2]}")
    return (copy or sys.modules[module])._SUPPLIED


@contextmanager
def use_prior(model: torch.nn.Module, tensors: Sequence[torch.Tensor], kind: str = "weights") -> Iterator[None]:
    """Supply the prior of the next calls instead of computing it. Holds for the thread that opens the block.

    Args:
        model: a patched model.
        tensors: one 1-D float tensor per image of the batch, in prompt order, one number per visual token
            (line-break tokens of LLaVA-NeXT and OneVision included).
        kind: `weights` = w, the scores rule still applies; `prior` = what the scores rule makes of w before any
            rescaling by measured scores (for preset `reference`: the probability vector); `scores` = p exactly as
            injected, neither rescaled nor levelled.

    Raises:
        LostattnError: not a patched model, unknown kind, tensors that are not 1-D, finite and float, or (at the call)
            wrong counts and lengths.

    Example:
        >>> with use_prior(model, [torch.rand(54)]):
        ...     model.generate(**inputs)
    """
    if not hasattr(model, "sap_settings"):
        raise LostattnError("use_prior needs a patched model: load one with lostattn.patches.load_patched")
    one_of("kind of prior", kind, KINDS)
    if isinstance(tensors, torch.Tensor):
        raise LostattnError("use_prior needs a list with one 1-D float tensor per image, not one tensor")
    tensors = tuple(tensors)
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, torch.Tensor) or tensor.dim() != 1 or not tensor.is_floating_point():
            raise LostattnError(f"use_prior needs a list of 1-D float tensors; entry {i} is none")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise LostattnError(f"use_prior: the tensor of image {i} holds NaN, infinity or numbers beyond float32")
    slot = slot_of(model, __name__)
    token = slot.set((*slot.get(), Supplied(model, tensors, kind)))
    try:
        yield
    finally:
        slot.reset(token)
