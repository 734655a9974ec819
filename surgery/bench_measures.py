"""`lostattn bench measures`: three states of a layer measured by shared factorisations, and by one SVD per measure."""

from __future__ import annotations

import ctypes
import logging
import mmap
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from .measures import effective_rank, factorize, rid, spectrum_change, support_innovation

logger = logging.getLogger(__name__)
Spectrum = Literal["full", "steep"]
_DECADES = {"full": 1, "steep": 4}  # by which features shrink from the first to the min(S, H)-th; float32 keeps 3.4


@dataclass(frozen=True)
class Row:
    """One comparison: medians of seconds, peak memory of one run above what was held before it, in 2^20 bytes."""

    tokens: int
    features: int
    spectrum: str
    rank: int
    straight_dtype: str
    straight_s: float
    ours_s: float
    ratio: float
    difference: float
    straight_mb: float | None
    ours_mb: float | None


def bench_measures(
    shapes: Iterable[tuple[int, int]] = ((1024, 3584), (4096, 3584)),
    repeats: int = 3,
    straight_repeats: int = 1,
    spectra: Iterable[Spectrum] = ("full", "steep"),
    straight_dtypes: Iterable[torch.dtype] = (torch.float64,),
    threads: int = 1,
) -> dict[str, object]:
    """Time eRank of three float32 states and Delta S, Delta D, RID of both steps, ours against a plain implementation.

    The plain one is the textbook's, and kind to itself: singular values only where that is enough, thin SVDs, no dense
    projector, RID from the Delta S and Delta D at hand; six decompositions. With one thread CPU time is counted, with
    more, wall time.

    Args:
        shapes: tokens, features.
        repeats: runs of our side, of which the median counts.
        straight_repeats: the same for the other side, which may take minutes.
        spectra: "full": numerical rank min(S, H), Cholesky suffices; "steep": many singular values lie below the
            tolerance, as with sink tokens, and eigenvectors are needed.
        straight_dtypes: in which the other side runs. In float32 it is faster, but Delta S, a small difference of
            large numbers, is then wrong by percents: not the same accuracy.
        threads: torch threads.

    Returns:
        `rows` (list of dicts) with `ratio` = straight / ours and `difference` = largest relative difference of any
        number, and `environment`.
    """
    held = torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    rows: list[Row] = []
    try:
        with torch.inference_mode():
            for tokens, features in shapes:
                for spectrum in spectra:
                    states = make_states(tokens, features, spectrum)
                    logger.info(f"{tokens} x {features}, {spectrum} rank, ours")
                    ours = _measured(lambda: shared(states), repeats, clock)  # noqa: B023
                    for dtype in straight_dtypes:
                        logger.info(f"{tokens} x {features}, {spectrum} rank, one SVD per measure in {dtype}")
                        other = _measured(lambda: straight(states, dtype), straight_repeats, clock)  # noqa: B023
                        rows.append(_compare(states, spectrum, dtype, ours, other))
                        logger.info(f"{rows[-1].ratio:.1f} times faster, {rows[-1].difference:.0e} apart")
    finally:
        torch.set_num_threads(held)
    return {"rows": [asdict(row) for row in rows], "environment": _environment(threads, repeats, straight_repeats)}


def make_states(tokens: int, features: int, spectrum: Spectrum) -> list[torch.Tensor]:
    """X_in; X_attn = X_in + causal mean of its tokens through a matrix; X_ffn = X_attn + a nonlinear update."""
    generator = torch.Generator().manual_seed(0)
    scale = 10 ** (-_DECADES[spectrum] * torch.arange(features) / min(tokens, features))
    x = torch.randn(tokens, features, generator=generator) * scale
    mix = torch.randn(features, features, generator=generator) * features**-0.5
    means = x.cumsum(0) / torch.arange(1, tokens + 1)[:, None]
    attended = x + means @ mix * scale
    return [x, attended, attended + 0.3 * torch.relu(attended @ mix) * scale]


def shared(states: list[torch.Tensor]) -> list[float]:
    """Ours: every state is factorised once, and each measure called by its public name."""
    first, second, third = (factorize(x) for x in states)
    results = [effective_rank(x) for x in (first, second, third)]
    for before, after in ((first, second), (second, third)):
        results += [spectrum_change(before, after), support_innovation(before, after), rid(before, after)]
    return [float(value) for value in results]


def straight(states: list[torch.Tensor], dtype: torch.dtype) -> list[float]:
    """The definitions one by one."""
    eranks: list[float] = []
    steps: list[float] = []
    for x, x_new in ((states[0], states[1]), (states[1], states[2])):
        old, new = (_plain_erank(s.to(dtype)) for s in (x, x_new))
        change = abs(new - old) / min(x.shape)
        support = _plain_support(x.to(dtype), x_new.to(dtype), torch.finfo(x.dtype).eps)
        eranks += [old, new][len(eranks) // 2 :]  # the middle state once
        steps += [change, support, change + support]
    return eranks + steps


def _plain_erank(x: torch.Tensor) -> float:
    values = torch.linalg.svdvals(x)
    shares = values / values.sum()
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))


def _plain_support(x: torch.Tensor, x_new: torch.Tensor, eps: float) -> float:
    u, values, v = torch.linalg.svd(x, full_matrices=False)
    rank = int((values > max(x.shape) * eps * values[0]).sum())
    u, v = u[:, :rank], v[:rank]
    columns = torch.linalg.norm(x_new - u @ (u.mT @ x_new))
    rows = torch.linalg.norm(x_new - (x_new @ v.mT) @ v)
    return float((columns + rows) / (2 * torch.linalg.norm(x_new)))


Measured = tuple[list[float], float, float | None]


def _measured(function: Callable[[], list[float]], repeats: int, clock: Callable[[], float]) -> Measured:
    """What it returns, median seconds, peak memory."""
    seconds: list[float] = []
    _return_freed_memory()
    with _Peak() as peak:
        for _ in range(repeats):
            start = clock()
            result = function()
            seconds.append(clock() - start)
    return result, statistics.median(seconds), peak.megabytes


def _return_freed_memory() -> None:
    """Or the second to be measured would live in what the first left behind."""
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


class _Peak:
    """Resident memory above that at entry, looked at every 2 ms from a thread; None where there is no /proc."""

    _statm = Path("/proc/self/statm")

    def __enter__(self) -> _Peak:
        self.megabytes: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if self._statm.exists():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        start = most = self._resident()
        while not self._stop.wait(0.002):
            most = max(most, self._resident())
        self.megabytes = (most - start) / 2**20

    def _resident(self) -> int:
        return int(self._statm.read_text().split()[1]) * mmap.PAGESIZE


def _compare(states: list[torch.Tensor], spectrum: str, dtype: torch.dtype, ours: Measured, other: Measured) -> Row:
    pairs = zip(ours[0], other[0], strict=True)
    difference = max(abs(a - b) / max(abs(b), 1e-300) for a, b in pairs)
    tokens, features = states[0].shape
    return Row(
        tokens,
        features,
        spectrum,
        int(factorize(states[0]).rank),
        str(dtype).removeprefix("torch."),
        other[1],
        ours[1],
        other[1] / ours[1],
        difference,
        other[2],
        ours[2],
    )


def _environment(threads: int, repeats: int, straight_repeats: int) -> dict[str, object]:
    return {
        "input": "float32, three states, eRank of each, Delta S, Delta D and RID of both steps",
        "threads": threads,
        "clock": "CPU time" if threads == 1 else "wall time",
        "repeats": repeats,
        "straight_repeats": straight_repeats,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
