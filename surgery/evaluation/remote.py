"""Answering a task's items through a server: one that is started here with vLLM, or one that is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.engine.versions import check_served, check_vllm
from ...serving.evaluation.asking import Asker, ask_all
from ...serving.evaluation.rate import Rate, Say
from ...serving.evaluation.store import Answers
from ...serving.failure import find_failure
from ...serving.judging.client import Endpoint
from ...serving.safety import cpu_defaults, names
from ...serving.server import Server
from ..serve import check_plugin, checked_plan
from .tasks import Asked


@dataclass(frozen=True)
class Address:
    """A server that somebody else started."""

    url: str
    name: str


@contextmanager
def served(
    folder: Path | None, backend: str, name: str, asked: Sequence[Asked], options: Sequence[str], logs: Path, say: Say
) -> Iterator[Endpoint]:
    """The server that answers; one that was started here ends with the block.

    Raises:
        LostattnError: vLLM is missing or does not start, and, where it died, what its log says.
    """
    if folder is None:
        yield Address(backend.rstrip("/"), name)
        return
    check_vllm()
    if (plan := checked_plan(folder)) is not None:
        check_plugin()
        check_served(plan.family)
    given = [*options, *_limits(asked, options)]
    memory = cpu_defaults(folder, given)
    logs.mkdir(parents=True, exist_ok=True)
    say(f"starting vLLM on {name}")
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


class Remote:
    """Asks one model of a server."""

    def __init__(self, endpoint: Endpoint, name: str, settings: Any) -> None:
        """Args: settings: `run.EvalSettings`."""
        self.endpoint, self.name, self.settings = endpoint, name, settings

    def answer(self, one: Asked, store: Answers, rate: Rate) -> None:
        """Ask what is not answered yet. LostattnError if the server refuses or is gone; what was answered is kept."""
        asker = Asker(
            self.endpoint.url, self.name, one.max_tokens, seed=self.settings.seed, api_key=self.settings.api_key,
            patience=self.settings.patience,
        )  # fmt: skip
        try:
            ask_all(asker.ask, one.items, store, self.settings.concurrency, rate)
        finally:
            asker.close()
