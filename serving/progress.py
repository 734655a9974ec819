"""Bars of progress: shown by the display that a program installs, such as the command line on a terminal; none without one."""

from __future__ import annotations

from collections.abc import Callable

Bar = Callable[[int], None]  # gets how many are done
Display = Callable[[str, int, int], Bar]  # what, total, done before -> a bar

_display: Display | None = None


def set_display(display: Display | None) -> Display | None:
    """Install what shows bars from now on, None for nothing; returns what was installed before."""
    global _display
    before, _display = _display, display
    return before


def bar_of(what: str, total: int, before: int = 0) -> Bar | None:
    """A bar on the installed display; None without one. Called with how many are done."""
    return None if _display is None else _display(what, total, before)


class LazyBar:
    """A bar that begins with the first count; calls give False where none is shown."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Bar | None = None

    def __call__(self, done: int, total: int) -> bool:
        """Tell how many of how many are done."""
        if self._bar is None:
            self._bar = bar_of(self._what, total, done - 1)
        if self._bar is None:
            return False
        self._bar(done)
        return True
