"""`lostattn eval`: every model answers every item of every task; what was answered stays answered."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...patches.errors import LostattnError
from ...patches.plan import Plan
from ...serving.evaluation.asking import Patience
from ...serving.evaluation.rate import Rate
from ...serving.evaluation.store import Answers, alone_in
from ...serving.evaluation.versus import Outcome, clusters, outcome_rows
from ...serving.hardware import hardware
from ...serving.judging.charts import need_matplotlib
from ...serving.judging.sides import describe_plan, folder_fingerprint
from ...serving.tasks.score import score
from ...serving.tasks.task import NATIVE
from ...serving.versions import lostattn_version, serving_versions, versions
from ..checkpoint.source import resolve_source
from ..serve import checked_plan
from .remote import Remote, served
from .tasks import Asked

Say = Callable[[str], None]
TRANSFORMERS, VLLM = "transformers", "vllm"


@dataclass(frozen=True)
class EvalSettings:
    """How models are asked and answers judged.

    Attributes:
        backend: `transformers`, `vllm`, or the URL of an OpenAI-style API.
        batch: items at once in transformers. concurrency: the same for a server.
        dtype, device: of transformers. options: of `vllm serve`.
        seed: of the bootstrap, of harnesses that guess, and sent to servers.
        harness: whose rule reads the answers.
        patience: with a server that fails.
    """

    backend: str = TRANSFORMERS
    batch: int = 16
    concurrency: int = 8
    dtype: str = "auto"
    device: str = "cpu"
    options: tuple[str, ...] = ()
    seed: int = 0
    harness: str = NATIVE
    api_key: str | None = None
    patience: Patience = field(default_factory=Patience)

    @property
    def remote(self) -> bool:
        """Whether a server answers that somebody else started."""
        return self.backend not in (TRANSFORMERS, VLLM)


@dataclass(frozen=True)
class Contestant:
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


def run_eval(
    models: Sequence[str], asked: Sequence[Asked], out: str | Path, settings: EvalSettings, say: Say = lambda _: None
) -> dict[str, Any]:
    """Evaluate models, the first of which is what the others are held against.

    Args:
        models: folders or Hub ids; names on the server if the backend is a URL.

    Returns:
        The report, as in `out/eval.json`; `eval.md` and `eval.html` lie beside it, the answers in `out/TASK/MODEL.jsonl`. An
        interrupted call is continued by the next one.

    Raises:
        LostattnError: a model or task that cannot be used, answers of other settings in `out`, a server that is gone.
    """
    from ...serving.evaluation.report import write_report

    need_matplotlib()
    check_backend(settings.backend)
    for one in asked:
        one.task.rule(settings.harness)
    found, out = contestants(models, settings), Path(out)
    with alone_in(out / ".lock") as alone:
        if not alone:
            raise LostattnError(f"another lostattn works in {out}: wait for it, or choose another --out")
        outcomes = [o for model in found for o in _evaluate(model, asked, out, settings, say)]
        outcomes.sort(key=lambda o: [a.task.name for a in asked].index(o.task))
        report = _report(found, asked, outcomes, settings)
        write_report(report, out)
    return report


def check_backend(backend: str) -> None:
    """LostattnError unless it is a known name or a URL."""
    if backend in (TRANSFORMERS, VLLM):
        return
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


def contestants(models: Sequence[str], settings: EvalSettings) -> list[Contestant]:
    """The models, checked; names that repeat are numbered."""
    found: list[Contestant] = []
    if not models:
        raise LostattnError("give at least one model")
    for model in models:
        if settings.remote:
            one = Contestant(_file_name(model), None, f"{model} at {settings.backend}", asked_as=model)
        else:
            folder = Path(model) if Path(model).is_dir() else resolve_source(model).path
            name = _file_name(folder.resolve().name if Path(model).is_dir() else model)
            one = Contestant(name, folder, folder_fingerprint(folder), checked_plan(folder))
        taken, number = {c.name for c in found}, 1
        while (name := one.name if number == 1 else f"{one.name}-{number}") in taken:
            number += 1
        found.append(replace(one, name=name))
    return found


def _file_name(name: str) -> str:
    """A name that is one file's on every system."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "model"


def answer_settings(one: Asked, identity: str, **more: Any) -> dict[str, Any]:
    """What a model's answers to a task depend on."""
    return {
        "task": one.task.name, "prompt": one.prompt_version, "n": len(one.items), "items": one.fingerprint,
        "model": identity, "max_tokens": one.max_tokens, **more,
    }  # fmt: skip


def _how(settings: EvalSettings) -> dict[str, Any]:
    if settings.backend == TRANSFORMERS:
        device = settings.device.partition(":")[0]
        own = {"dtype": settings.dtype, "device": device, "batch": settings.batch, "versions": versions()}
        return {"backend": TRANSFORMERS, **own}
    if settings.backend == VLLM:
        return {
            "backend": VLLM,
            "options": list(settings.options),
            "seed": settings.seed,
            "versions": serving_versions(),
        }
    return {"backend": "server", "seed": settings.seed, "versions": {"lostattn": lostattn_version()}}


def _evaluate(
    model: Contestant, asked: Sequence[Asked], out: Path, settings: EvalSettings, say: Say
) -> Iterator[Outcome]:
    """Ask one model what it has not answered yet, and score."""
    how = _how(settings)
    stores = [
        Answers(out / one.task.name / model.name, answer_settings(one, model.identity, **how), one.items)
        for one in asked
    ]
    with _answering(model, asked, stores, settings, out, say) as answer:
        for one, store in zip(asked, stores, strict=True):
            start = time.perf_counter()
            if not store.done:
                answer(one, store, Rate(f"{one.task.name}, {model.name}", len(one.items), len(store.found), say))
            yield score_answers(one, model.name, store, settings.harness, settings.seed, time.perf_counter() - start)


def score_answers(one: Asked, name: str, store: Answers, harness: str, seed: int, seconds: float) -> Outcome:
    """Parse and judge all answers, and write them with what was decided."""
    replies = store.replies
    found = score(one.task, [(i, r.text) for i, r in zip(one.items, replies, strict=True)], harness, seed)
    more = {"prompt_version": one.prompt_version, "parser": found.parser, "harness": harness}
    store.finish([{**d.row(), **more} for d in found.decisions])
    return Outcome(one.task.name, name, found, replies, seconds)


@contextmanager
def _answering(
    model: Contestant, asked: Sequence[Asked], stores: Sequence[Answers], settings: EvalSettings, out: Path, say: Say
) -> Iterator[Callable[[Asked, Answers, Rate], None]]:
    """A way of answering, made only if something is left to answer."""
    if all(store.done for store in stores):
        say(f"{model.name}: everything was answered before")
        yield _never
    elif settings.backend == TRANSFORMERS:
        yield _locally(model, settings, say)
    else:
        with served(model.folder, settings.backend, model.name, asked, settings.options, out / "logs", say) as endpoint:
            yield Remote(endpoint, model.asked_as or endpoint.name, settings).answer


def _never(*_: Any) -> None:
    raise AssertionError("everything was answered")


def _locally(model: Contestant, settings: EvalSettings, say: Say) -> Callable[[Asked, Answers, Rate], None]:
    from ..chat import Chat
    from .local import Encoded, answer_locally

    assert model.folder is not None
    say(f"loading {model.name}")
    chat = Chat.load(model.folder, settings.dtype, settings.device)

    def answer(one: Asked, store: Answers, rate: Rate) -> None:
        answer_locally(chat, Encoded(chat.processor, one.items), store, one.max_tokens, settings.batch, rate)

    return answer


def circumstances(settings: EvalSettings) -> dict[str, Any]:
    """What every number has to carry."""
    import torch

    return {
        "backend": settings.backend, "how": {k: v for k, v in _how(settings).items() if k != "versions"},
        "seed": settings.seed, "harness": settings.harness, "hardware": hardware(),
        "versions": serving_versions() if settings.backend != TRANSFORMERS else versions(),
        "threads": torch.get_num_threads(), "command": _command(settings),
    }  # fmt: skip


def _command(settings: EvalSettings) -> str:
    """The command that runs now, without the key."""
    words = [Path(sys.argv[0]).name.replace("cli.py", "lostattn"), *sys.argv[1:]]
    return shlex.join(w.replace(settings.api_key, "...") if settings.api_key else w for w in words)


def task_facts(asked: Sequence[Asked], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One entry per task, for reports."""
    found = {o.task: o for o in reversed(outcomes)}
    return [
        {
            "task": one.task.name, "n": len(one.items), "data": one.data, "prompt": one.prompt_version,
            "max_tokens": one.max_tokens, "parser": found[one.task.name].score.parser, "main": one.task.main,
            "clusters": len(set(labels)) if (labels := clusters(found[one.task.name])) else None,
            "first_prompt": one.items[0].text,
        } for one in asked
    ]  # fmt: skip


def _report(
    models: Sequence[Contestant], asked: Sequence[Asked], outcomes: Sequence[Outcome], settings: EvalSettings
) -> dict[str, Any]:
    return {
        "models": [
            {"name": m.name, "identity": m.identity, "plan": describe_plan(m.plan) if m.folder else None,
             "sap": m.plan.to_json() if m.plan else None} for m in models
        ],
        "tasks": task_facts(asked, outcomes), "results": outcome_rows(outcomes, settings.seed), **circumstances(settings),
    }  # fmt: skip
