"""Lines of the logger `lostattn`, handed to a function: to the command line, or to an argument `say` of earlier versions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOGGER = "lostattn"
Write = Callable[[str], None]


class Lines(logging.Handler):
    """Hands every record's text to a function, whose exceptions are not caught: a closed pipe ends the command."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._write(self.format(record))


@contextmanager
def lines_to(write: Write) -> Iterator[None]:
    """Hand lines of level INFO and above to `write` while the block runs, and to nobody else."""
    logger, handler = logging.getLogger(LOGGER), Lines(write)
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@contextmanager
def deprecated_say(say: Write | None) -> Iterator[None]:
    """Hand the lines to a caller's `say`, with a DeprecationWarning at the line that called the function; None does nothing."""
    if say is None:
        yield
        return
    # from here: contextlib, the function with the argument, its caller
    warnings.warn("'say' is deprecated: configure the logger 'lostattn' instead", DeprecationWarning, stacklevel=4)
    with lines_to(say):
        yield
