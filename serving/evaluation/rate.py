"""Progress in words: how many are done, how fast, how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

Say = Callable[[str], None]
Bar = Callable[[int], None]  # gets how many are done
PAUSE = 5.0  # seconds between lines


def bar_of(say: Say, what: str, total: int, before: int = 0) -> Bar:
    """A bar where whoever listens can show one (`say.bar`), else nothing. Called with how many are done."""
    make = getattr(say, "bar", None)
    return (lambda _: None) if make is None else make(what, total, before)


class LazyBar:
    """A bar that begins with the first count; calls give False where none is shown."""

    def __init__(self, say: Say, what: str) -> None:
        self._say, self._what = say, what
        self._bar: Bar | None = None

    def __call__(self, done: int, total: int) -> bool:
        """Tell how many of how many are done."""
        if getattr(self._say, "bar", None) is None:
            return False
        if self._bar is None:
            self._bar = bar_of(self._say, self._what, total, done - 1)
        self._bar(done)
        return True


class Rate:
    """A bar if `say` can show one; else a line at most every few seconds, and one at the end.

    What was done before counts, but not for the rate.
    """

    def __init__(
        self, what: str, total: int, before: int, say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.what, self.total, self.before, self._say, self._clock = what, total, before, say, clock
        self.began = self._told = clock()
        if 0 < before < total:
            say(f"{what}: {before} of {total} answers were there before")
        self._bar: Bar | None = bar_of(say, what, total, before) if getattr(say, "bar", None) else None

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
        self._say(f"{self.what}: {done}/{self.total} answers, {speed:.3g}/s{left}")


def duration(seconds: float) -> str:
    """3725 as `1 h 02 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"
