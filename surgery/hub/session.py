"""Talking to the Hub through its own client: no endless waits, no log lines with signed addresses."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ...patches.errors import LostattnError
from ..checkpoint.provenance import lostattn_version

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PATIENCE = 120.0  # seconds without a byte
logger = logging.getLogger(__name__)
_RETRY = re.compile(r"Retrying in ([\d.]+)s|Waiting ([\d.]+)s before retry|Trying to resume download")


@contextmanager
def hub_session(timeout: float = PATIENCE) -> Iterator[HfApi]:
    """An HfApi whose requests give up after `timeout` silent seconds; the client's own retries are logged in our words.

    The client logs addresses of requests, and those of uploads are signed: nothing of its log passes.
    """
    from huggingface_hub import HfApi

    if timeout <= 0:
        raise LostattnError(f"--timeout must be more than 0 seconds, not {timeout:g}")
    with ExitStack() as stack:
        stack.enter_context(_patience(timeout))
        stack.enter_context(_quiet_log())
        stack.enter_context(_quiet_bars())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield HfApi(library_name="lostattn", library_version=lostattn_version())


def has_token() -> bool:
    """Whether the Hub's client finds a token: HF_TOKEN or a login."""
    from huggingface_hub import get_token

    return bool(get_token())


@contextmanager
def _patience(timeout: float) -> Iterator[None]:
    """The client waits without end by itself, and says so with many a request: hence a hook and no default."""
    from huggingface_hub import close_session, set_client_factory
    from huggingface_hub.utils import _http

    def limit(request: Any) -> None:
        asked = request.extensions.get("timeout") or {}
        names = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = {n: timeout if asked.get(n) is None else asked[n] for n in names}

    previous = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)

    def patient() -> Any:
        client = previous()
        hooks = client.event_hooks
        client.event_hooks = {**hooks, "request": [*hooks.get("request", []), limit]}
        return client

    set_client_factory(patient)
    try:
        yield
    finally:
        set_client_factory(previous)
        close_session()


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Of the client's log only that it tries again gets through, in our words."""
    client = logging.getLogger("huggingface_hub")

    class Retries(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if match := _RETRY.search(record.getMessage()):
                seconds = match[1] or match[2] or "1"
                logger.warning(f"the Hub or the network falters: trying again in {float(seconds):g} s")

    handlers, propagate, level = client.handlers[:], client.propagate, client.level
    client.handlers[:], client.propagate = [Retries()], False
    client.setLevel(logging.WARNING)
    try:
        yield
    finally:
        client.handlers[:], client.propagate = handlers, propagate
        client.setLevel(level)


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """No progress bars where nobody watches."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()
