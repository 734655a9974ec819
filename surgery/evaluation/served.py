"""A vLLM server of one model, started for the time that its questions take."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...patches.errors import LostattnError
from ...serving.client import Endpoint
from ...serving.disk import disk_errors
from ...serving.engine.versions import check_served, check_vllm
from ...serving.failure import find_failure
from ...serving.safety import cpu_defaults, names
from ...serving.server import Server
from ..serve import check_plugin, checked_plan
from .tasks import Asked

logger = logging.getLogger(__name__)


@contextmanager
def started(folder: Path, name: str, asked: Sequence[Asked], options: Sequence[str], logs: Path) -> Iterator[Endpoint]:
    """The running server; it ends with the block.

    Raises:
        LostattnError: vLLM is missing or does not start, and, where it died, what its log says.
    """
    check_vllm()
    if (plan := checked_plan(folder)) is not None:
        check_plugin()
        check_served(plan.family)
    given = [*options, *_limits(asked, options)]
    memory = cpu_defaults(folder, given)
    with disk_errors(f"cannot write {logs}"):
        logs.mkdir(parents=True, exist_ok=True)
    logger.info(f"starting vLLM on {name}")
    server = Server(folder, name=name, options=[*memory.options, *given], log=logs / f"{name}.log", env=memory.env)
    with server.start():
        try:
            yield server
        except LostattnError as error:
            if server.running:
                raise
            said = find_failure(server.log_text()) or "nothing"
            raise LostattnError(f"{error}; vLLM died and its log says: {said} ({server.log})") from error


def _limits(asked: Sequence[Asked], options: Sequence[str]) -> list[str]:
    """As many pictures in a prompt as the tasks have."""
    most = max([sum(isinstance(p, int) for p in item.prompt) for one in asked for item in one.items] or [8])
    if names(options, "--limit-mm-per-prompt"):
        return []
    return ["--limit-mm-per-prompt", f'{{"image": {max(most, 1)}, "video": 0}}']
