"""What a patched model shares with its attention layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from .steps import Seat

_seats: ContextVar[Sequence[Seat]] = ContextVar("lostattn_seats", default=())


class SapState:
    """Prior of the tokens of the current step, by flat row, float32, NaN on text: written where the tokens are embedded (or
    come from the pipeline stage before), read by the patched layers."""

    def __init__(self, max_tokens: int, device: torch.device | str) -> None:
        self.prior = torch.full((max_tokens,), torch.nan, dtype=torch.float32, device=device)


@contextmanager
def seated(seats: Sequence[Seat]) -> Iterator[None]:
    """Tell the metadata builders which request sits in which row of the batch."""
    token = _seats.set(seats)
    try:
        yield
    finally:
        _seats.reset(token)


def current_seats() -> Sequence[Seat]:
    """What `seated` told, or nothing."""
    return _seats.get()
