"""Who answers a task's items: this process through transformers, servers started here, a server that is there, lmms-eval.

All have one interface, `Backend`. What a model has answered is in its store; a backend answers what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ...patches.errors import LostattnError
from ...patches.plan import Plan
from ...serving.benchmark.servers import Servers
from ...serving.client import Endpoint
from ...serving.disk import read_json
from ...serving.evaluation.asker import ONCE, Asker, Patience, ask_all
from ...serving.evaluation.lmms import arguments, lmms_command, read_samples, run_lmms, write_task
from ...serving.evaluation.rate import Rate
from ...serving.evaluation.store import Answers, Reply
from ...serving.sides import Side, image_token
from ...serving.versions import lostattn_version, serving_versions, versions
from .served import started
from .tasks import Asked

TRANSFORMERS, VLLM = "transformers", "vllm"
Answer = Callable[[Asked, Answers, Rate], None]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A model that is evaluated.

    Attributes:
        name: in reports and file names.
        folder: None for a name on a server.
        identity: what tells it from other models: its content, or name and server.
        asked_as: its name on that server.
    """

    name: str
    folder: Path | None
    identity: str
    plan: Plan | None = None
    asked_as: str = ""


class Backend(Protocol):
    """Who answers.

    Attributes:
        settings: what answers depend on beside model and items.
        versions: of the software that computes them.
    """

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def versions(self) -> Mapping[str, Any]: ...

    def answering(self, model: Model, asked: Sequence[Asked]) -> AbstractContextManager[Answer]:
        """A way of answering what stores do not hold yet, while the block runs."""
        ...


@dataclass(frozen=True)
class InProcess:
    """transformers in this process; `batch` items at once."""

    dtype: str
    device: str
    batch: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """dtype, kind of device, batch size, versions."""
        device = self.device.partition(":")[0]
        how = {"backend": TRANSFORMERS, "dtype": self.dtype, "device": device, "batch": self.batch}
        return {**how, "versions": self.versions}

    @property
    def versions(self) -> Mapping[str, Any]:
        """Of lostattn and what computes."""
        return versions()

    @contextmanager
    def answering(self, model: Model, asked: Sequence[Asked]) -> Iterator[Answer]:
        """Loads the model."""
        from ..chat import Chat
        from .local import Encoded, answer_locally

        assert model.folder is not None
        logger.info(f"loading {model.name}")
        chat = Chat.load(model.folder, self.dtype, self.device)

        def answer(one: Asked, store: Answers, rate: Rate) -> None:
            answer_locally(chat, Encoded(chat.processor, one.items), store, one.max_tokens, self.batch, rate)

        yield answer


@dataclass(frozen=True)
class ThroughVllm:
    """A vLLM server of each model, started here.

    Attributes:
        options: of `vllm serve`.
        logs: folder for the servers' logs.
        servers, sides: of `compare`: they are measured as well, and stay alive between the models where memory allows.
    """

    options: Sequence[str]
    concurrency: int
    seed: int
    logs: Path
    servers: Servers | None = None
    sides: Sequence[Side] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """vLLM's options as the user gave them, seed, versions."""
        return {"backend": VLLM, "options": list(self.options), "seed": self.seed, "versions": self.versions}

    @property
    def versions(self) -> Mapping[str, Any]:
        """Of lostattn, vLLM and what computes."""
        return serving_versions()

    @contextmanager
    def answering(self, model: Model, asked: Sequence[Asked]) -> Iterator[Answer]:
        """Starts the server, or takes the one that runs."""
        assert model.folder is not None
        if self.servers is not None:
            side = next(s for s in self.sides if s.name == model.name)
            with self.servers.blame(side):
                yield self._answer(self.servers.use(side), side.image_token)
            return
        with started(model.folder, model.name, asked, self.options, self.logs) as endpoint:
            config = read_json(model.folder / "config.json", f"config.json in {model.folder}")
            yield self._answer(endpoint, image_token(config))

    def _answer(self, endpoint: Endpoint, visual: int | None) -> Answer:
        def answer(one: Asked, store: Answers, rate: Rate) -> None:
            asker = Asker(
                endpoint.url, endpoint.name, one.max_tokens, seed=self.seed, image_token=visual, patience=ONCE
            )
            _ask(asker, one, store, self.concurrency, rate)

        return answer


@dataclass(frozen=True)
class AtUrl:
    """A server that somebody else started, of any kind that speaks OpenAI's API."""

    url: str
    concurrency: int
    seed: int
    api_key: str | None
    patience: Patience

    @property
    def settings(self) -> Mapping[str, Any]:
        """The seed: what else the server's answers depend on is not known here."""
        return {"backend": "server", "seed": self.seed, "versions": self.versions}

    @property
    def versions(self) -> Mapping[str, Any]:
        """Of lostattn alone."""
        return {"lostattn": lostattn_version()}

    @contextmanager
    def answering(self, model: Model, asked: Sequence[Asked]) -> Iterator[Answer]:
        """Asks the model of that name."""

        def answer(one: Asked, store: Answers, rate: Rate) -> None:
            asker = Asker(
                self.url, model.asked_as, one.max_tokens, seed=self.seed, api_key=self.api_key, patience=self.patience
            )
            _ask(asker, one, store, self.concurrency, rate)

        yield answer


def _ask(asker: Asker, one: Asked, store: Answers, at_once: int, rate: Rate) -> None:
    try:
        ask_all(asker.ask, one.items, store, at_once, rate)
    finally:
        asker.close()


@dataclass(frozen=True)
class ThroughLmmsEval:
    """lmms-eval asks the server of another backend; its answers are kept and read like all others.

    Attributes:
        url: of the server; None starts vLLM on each model.
        place: folder for its tasks, logs and results, by model and task.
    """

    url: str | None
    options: Sequence[str]
    concurrency: int
    seed: int
    api_key: str | None
    place: Path

    @property
    def settings(self) -> Mapping[str, Any]:
        """The server's, and who asks."""
        options = {"backend": VLLM, "options": list(self.options)} if self.url is None else {"backend": "server"}
        return {**options, "via": "lmms-eval", "seed": self.seed, "versions": self.versions}

    @property
    def versions(self) -> Mapping[str, Any]:
        """Of the server, as far as it is known."""
        return serving_versions() if self.url is None else {"lostattn": lostattn_version()}

    @contextmanager
    def endpoint(self, model: Model, asked: Sequence[Asked]) -> Iterator[tuple[str, str]]:
        """URL and model name of the server that is asked."""
        if self.url is not None:
            yield self.url, model.asked_as
            return
        assert model.folder is not None
        with started(model.folder, model.name, asked, self.options, self.place.parent / "logs") as result:
            yield result.url, result.name

    def run(self, url: str, name: str, tasks: Sequence[str], out: Path, **more: Any) -> None:
        """Let it evaluate its own tasks, or those in `folder`; results go to `out`, its output beside it."""
        given = arguments(url, name, tasks, out, at_once=self.concurrency, seed=self.seed, **more)
        logger.info(f"lmms-eval asks {name}; its output goes to {out}.log")
        out.parent.mkdir(parents=True, exist_ok=True)
        run_lmms([*lmms_command(), *given], out.with_name(f"{out.name}.log"), self.api_key)

    @contextmanager
    def answering(self, model: Model, asked: Sequence[Asked]) -> Iterator[Answer]:
        """Writes each task in lmms-eval's form, and reads what it logged."""
        lmms_command()  # refuses before a server is started
        with self.endpoint(model, asked) as (url, name):

            def answer(one: Asked, store: Answers, rate: Rate) -> None:
                folder, out = self.place / "tasks", self.results(model, one)
                task = write_task(one.task.name, one.items, folder, one.max_tokens)
                self.run(url, name, [task], out, folder=folder, limit=None)
                said = read_samples(out, task, one.items)
                store.add({i: Reply(text, "") for i, text in enumerate(said)})
                rate(len(said))

            yield answer

    def results(self, model: Model, one: Asked) -> Path:
        """Where lmms-eval leaves its own results of a task."""
        return self.place / model.name / one.task.name


def check_url(backend: str) -> None:
    """LostattnError unless it is a URL without a password."""
    try:
        parts = urlsplit(backend)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        known = False
    if not known:
        raise LostattnError(
            f"unknown backend '{backend}': choose transformers, vllm, or a URL such as http://127.0.0.1:8000/v1"
        )
    if parts.username or parts.password:
        raise LostattnError("reports name the URL, which holds a password: put a key into LOSTATTN_API_KEY instead")
