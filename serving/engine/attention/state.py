"""What a patched model shares with its attention layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from ..cache.spans import RequestInfo


@dataclass(frozen=True)
class Batch:
    """The requests of a step.

    Attributes:
        ids: by row of the batch.
        look_up: what is known of a request, by its id; asked when a request is new in the batch.
    """

    ids: Sequence[str] = ()
    look_up: Callable[[str], RequestInfo] = lambda name: RequestInfo(name, (), 0)

    def requests(self) -> list[RequestInfo]:
        """By row of the batch."""
        return [self.look_up(name) for name in self.ids]


_batch: ContextVar[Batch] = ContextVar("lostattn_batch", default=Batch())  # noqa: B039 - frozen


class SapState:
    """Prior of the tokens of the current step, by flat row, float32, NaN on text: written where the tokens are embedded (or
    come from the pipeline stage before), read by the patched layers.

    Args:
        features: numbers of a visual token that scores rule `fitted` sums up; 0 for other rules.

    Attributes:
        prior: (max_tokens,); for `fitted` 0 on visual tokens. features: (max_tokens, features), anything on text.
    """

    def __init__(self, max_tokens: int, device: torch.device | str, features: int = 0) -> None:
        self.prior = torch.full((max_tokens,), torch.nan, dtype=torch.float32, device=device)
        self.features = torch.zeros(max_tokens, features, dtype=torch.float32, device=device)

    @property
    def columns(self) -> int:
        """Numbers of a token: its prior and its features."""
        return 1 + self.features.shape[1]

    def put(self, start: int, numbers: torch.Tensor) -> None:
        """Numbers (n, columns) of the rows from `start` on."""
        rows = slice(start, start + len(numbers))
        self.prior[rows].copy_(numbers[:, 0])
        self.features[rows].copy_(numbers[:, 1:])

    def get(self, count: int) -> torch.Tensor:
        """Numbers (count, columns) of the first rows, a copy."""
        return torch.cat([self.prior[:count, None], self.features[:count]], 1)


@contextmanager
def scheduled(batch: Batch) -> Iterator[None]:
    """Let the metadata builders know the batch while the block runs."""
    token = _batch.set(batch)
    try:
        yield
    finally:
        _batch.reset(token)


def current_batch() -> Batch:
    """The batch of `scheduled`, or an empty one."""
    return _batch.get()


class PriorStore:
    """Prior of the visual tokens that the KV cache holds, by cache slot.

    Blocks of all KV-cache groups come from one pool, so a slot belongs to one request only; groups whose blocks have other
    sizes are kept apart.

    4 bytes a token for all layers together: at 28 layers and 4 KV heads of 128 channels in 16 bits 0.007 % of the cache.
    """

    def __init__(self) -> None:
        self.numbers: dict[int, torch.Tensor] = {}
        self.written: object | None = None

    def write(self, step: object, slots: torch.Tensor, prior: torch.Tensor, cache: torch.Tensor) -> None:
        """Note the prior of a step's new tokens; the first layer that runs with a step's metadata does it.

        Args:
            slots: slot of every new token, int64 (n,), negative for none. prior: (n,) float32, NaN on text.
            cache: a layer's cache (blocks, H, size, 2 D), for its number of slots.
        """
        if self.written is step:
            return
        self.of(cache)[slots.clamp_min(0)] = prior  # slot 0 is of vLLM's null block: what has no slot may go there
        self.written = step

    def of(self, cache: torch.Tensor) -> torch.Tensor:
        """All numbers beside a layer's cache, by flat slot."""
        size = cache.shape[2]
        if size not in self.numbers:
            self.numbers[size] = torch.full(
                (cache.shape[0] * size,), torch.nan, dtype=torch.float32, device=cache.device
            )
        return self.numbers[size]

    def read(self, slots: tuple[torch.Tensor, torch.Tensor], size: int) -> torch.Tensor:
        """Prior at (blocks, offsets), any shape; NaN on text."""
        return self.numbers[size][slots[0] * size + slots[1]]
