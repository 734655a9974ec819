"""What commands tell while they work: lines on stderr, and a bar with rate and rest where somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ...serving.progress import Bar, Display, LazyBar, set_display
from ..log_lines import lines_to


class Teller:
    """Called with a line, it prints it on stderr, above the bars if some are shown.

    Its `display` shows bars of progress; None in a pipe.
    """

    def __init__(self, console: Any = None) -> None:
        self._given = console
        self._progress: Any = None

    def __call__(self, text: str) -> None:
        console = self._given if self._progress is None else self._progress.console
        if console is None:
            click.echo(text, err=True)
        else:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    @property
    def display(self) -> Display | None:
        """(what, total, done before) -> a function of what is done, for a terminal; None elsewhere."""
        return self._bar if self._given is not None or sys.stderr.isatty() else None

    def _bar(self, what: str, total: int, before: int) -> Bar:
        if self._progress is None:
            self._progress = _progress(self._given)
            self._progress.start()
        shown = self._progress
        task = shown.add_task(what, total=total, completed=before, before=before)

        def done(count: int) -> None:
            shown.update(task, completed=count)
            if count >= total:
                self._finish(task)

        return done

    def _finish(self, task: Any) -> None:
        """A full bar stays as a line; the display ends with the last one."""
        if self._progress is not None and self._progress.finished:
            self.close()

    def close(self) -> None:
        """End the display, whatever it shows; lines go on."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _progress(console: Any) -> Any:
    """Bars with done/total, rate and remaining time; stdout is left alone, it belongs to results."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        """What was done in this run, per second."""

        def render(self, task: Any) -> Text:
            new = task.completed - task.fields["before"]
            passed = task.finished_time if task.finished else task.elapsed
            return Text(f"{new / passed:.3g}/s" if passed and new > 0 else "-/s", style="progress.data.speed")

    # redrawn seldom: the thread that does it runs beside what is measured
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
        console=console or Console(stderr=True),
        redirect_stdout=False,
        refresh_per_second=4,
    )


tell = Teller()


@contextmanager
def telling() -> Iterator[None]:
    """Tell what the libraries log, and show their progress, while the block runs."""
    before = set_display(tell.display)
    try:
        with lines_to(tell):
            yield
    finally:
        set_display(before)
        tell.close()


class Counter:
    """`done/total` as a bar on a terminal, or every tenth part as a line of its own elsewhere."""

    def __init__(self, what: str) -> None:
        self.what, self.shown = what, -1
        self._bar = LazyBar(what)

    def __call__(self, done: int, total: int) -> None:
        if not self._bar(done, total) and (part := 10 * done // total) != self.shown:
            self.shown = part
            tell(f"{self.what} {done}/{total}")
