"""Where layers keep what they know of decoding requests from one step to the next."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from heapq import heappop, heappush

import torch
from torch.nn.functional import pad


class TableRows:
    """Rows 0, 1, ... of a table, the lowest free one for each newcomer.

    Args:
        keep: steps that a request may miss without losing its place: one less than there are batches under way at once.
    """

    def __init__(self, device: torch.device, keep: int = 0) -> None:
        self.device, self.keep, self.step = device, keep, 0
        self._known: dict[Hashable, tuple[int, int]] = {}  # place, the last step with it
        self._free: list[int] = []  # a heap

    def take(self, names: Sequence[Hashable]) -> tuple[slice | torch.Tensor, list[tuple[int, int]]]:
        """One step's requests.

        Returns:
            places in the order of `names`, int64 (n,), or a slice if they are neighbours: a view, where an index would copy;
            numbers and places of those that have to be filled.
        """
        places, fresh = self.places(names)
        first = places[0] if places else 0
        if places == list(range(first, first + len(places))):
            return slice(first, first + len(places)), fresh
        return torch.tensor(places, device=self.device), fresh

    def places(self, names: Sequence[Hashable]) -> tuple[list[int], list[tuple[int, int]]]:
        """One step's requests: places in the order of `names`; numbers and places of those that have to be filled."""
        self.step += 1
        present = set(names)
        for name in [n for n, (_, last) in self._known.items() if n not in present and self.step - last > self.keep]:
            heappush(self._free, self._known.pop(name)[0])
        places, fresh = [], []
        for number, name in enumerate(names):
            place, _ = self._known.get(name, (-1, 0))
            if place < 0:
                place = heappop(self._free) if self._free else len(self._known)
                fresh.append((number, place))
            self._known[name] = place, self.step
            places.append(place)
        return places, fresh

    def rename(self, name: Hashable, new: Hashable) -> None:
        """What is kept for `name` is now what `new` asks for."""
        self._known[new] = self._known.pop(name)


class SummaryTable:
    """Of one layer: log mass, float32 (P,), and mean (P, H, D), float32, of a request's images; grows as needed.

    Args:
        by_head: log mass (P, H) instead.

    Attributes:
        log_mass, mean: what is kept.
    """

    def __init__(self, heads: int, head_size: int, by_head: bool = False) -> None:
        self.log_mass = torch.zeros((0, heads) if by_head else 0, dtype=torch.float32)
        self.mean = torch.zeros(0, heads, head_size, dtype=torch.float32)

    def fill(self, places: list[int], log_mass: torch.Tensor, mean: torch.Tensor) -> None:
        """Put log_mass (n,) or (n, H) and mean (n, H, D) into places."""
        missing = max(places) + 1 - len(self.log_mass)
        if missing > 0:
            more = max(missing, len(self.log_mass))
            room = (0, 0) * (self.log_mass.dim() - 1) + (0, more), (0, 0, 0, 0, 0, more)
            old = self.log_mass.to(mean.device), self.mean.to(mean.device)
            self.log_mass, self.mean = (pad(x, p) for x, p in zip(old, room, strict=True))
        at = torch.tensor(places, device=mean.device)
        self.log_mass[at], self.mean[at] = log_mass, mean

    def read(self, places: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log_mass (n,) or (n, H), and mean (n, H, D)."""
        return self.log_mass[places], self.mean[places]
