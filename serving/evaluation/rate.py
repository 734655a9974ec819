"""Progress in words: how many are done, how fast, how long it will take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..progress import bar_of

PAUSE = 5.0  # seconds between lines
logger = logging.getLogger(__name__)


class Rate:
    """A bar where a display is installed; else a line in the log at most every few seconds, and one at the end.

    What was done before counts, but not for the rate.
    """

    def __init__(self, what: str, total: int, before: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.total, self.before, self._clock = what, total, before, clock
        self.began = self._told = clock()
        if 0 < before < total:
            logger.info(f"{what}: {before} of {total} answers were there before")
        self._bar = bar_of(what, total, before)

    def __call__(self, done: int) -> None:
        """Tell, if it is time for it."""
        if self._bar is not None:
            self._bar(done)
            return
        now = self._clock()
        if done < self.total and now - self._told < PAUSE:
            return
        self._told = now
        passed, new = now - self.began, done - self.before
        speed = new / passed if passed > 0 and new else 0.0
        left = f", {duration((self.total - done) / speed)} left" if speed and done < self.total else ""
        logger.info(f"{self.what}: {done}/{self.total} answers, {speed:.3g}/s{left}")


def duration(seconds: float) -> str:
    """3725 as `1 h 02 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"
