"""Every model answers every item of every task; what was answered stays answered, and is read anew in every call."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ...patches.errors import LostattnError
from ...serving.evaluation.asker import Patience
from ...serving.evaluation.rate import Rate
from ...serving.evaluation.store import Answers, Reply, alone_in
from ...serving.evaluation.versus import Outcome, changed_questions, clusters, outcome_rows
from ...serving.hardware import hardware
from ...serving.reading.videos import Clip
from ...serving.shown import shown
from ...serving.sides import describe_plan, folder_fingerprint
from ...serving.tasks.score import score
from ...serving.tasks.task import NATIVE, Item
from ..checkpoint.source import resolve_source
from ..serve import checked_plan
from .backends import TRANSFORMERS, VLLM, AtUrl, Backend, InProcess, Model, ThroughVllm, check_url
from .tasks import Asked

Check = Callable[[int, Reply], None]
logger = logging.getLogger(__name__)


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


def make_backend(settings: EvalSettings, out: Path) -> Backend:
    """The backend that settings name; logs go below `out`. LostattnError if there is none of that name."""
    if settings.backend == TRANSFORMERS:
        return InProcess(settings.dtype, settings.device, settings.batch)
    if settings.backend == VLLM:
        return ThroughVllm(settings.options, settings.concurrency, settings.seed, out / "logs")
    check_url(settings.backend)
    url = settings.backend.rstrip("/")
    return AtUrl(url, settings.concurrency, settings.seed, settings.api_key, settings.patience)


def run_eval(
    models: Sequence[str],
    asked: Sequence[Asked],
    out: str | Path,
    settings: EvalSettings,
    backend: Backend | None = None,
) -> dict[str, Any]:
    """Evaluate models, the first of which is what the others are compared with.

    Args:
        models: folders or Hub ids; names on the server if the backend is a URL.
        backend: None makes the one that the settings name.

    Returns:
        The report, as in `out/eval.json`; `eval.md` and `eval.html` lie beside it, the answers in `out/TASK/MODEL.jsonl`. An
        interrupted call is continued by the next one.

    Raises:
        LostattnError: a model or task that cannot be used, answers of other settings in `out`, a server that is gone.
    """
    from ...serving.evaluation.page import write_report

    out = Path(out)
    backend = backend or make_backend(settings, out)
    opened = read_models(models, settings)
    with working_in(out):
        outcomes = answer_and_score(opened, asked, out, settings, backend)
        report = make_report("eval", opened, asked, outcomes, settings, backend)
        write_report(report, out, pictures_of(report, asked))
    return report


def pictures_of(report: Mapping[str, Any], asked: Sequence[Asked]) -> dict[tuple[str, str], Any]:
    """The first picture of every question that a report shows, by task and id."""
    items = {(one.task.name, item.id): item for one in asked for item in one.items}
    shown = [(q["task"], q["id"]) for q in report["changed"]]
    return {key: _picture(items[key]) for key in shown if items[key].images}


def _picture(item: Item) -> Image.Image:
    first = item.opened()[0]
    return first.pictures()[0] if isinstance(first, Clip) else first


@contextmanager
def working_in(out: Path) -> Iterator[None]:
    """Hold a report's folder. LostattnError if another process works there, or an earlier version's comparison lies there."""
    if list(out.glob("answers-[0-9]*-*.jsonl")):
        raise LostattnError(
            f"{out} holds a comparison of lostattn 0.1, which cannot be continued: choose another --out"
        )
    with alone_in(out / ".lock") as alone:
        if not alone:
            raise LostattnError(f"another lostattn works in {out}: wait for it, or choose another --out")
        yield


def read_models(models: Sequence[str], settings: EvalSettings) -> list[Model]:
    """The models, checked; names that repeat are numbered."""
    results: list[Model] = []
    if not models:
        raise LostattnError("give at least one model")
    for model in models:
        if settings.remote:
            one = Model(_file_name(model), None, f"{model} at {settings.backend}", asked_as=model)
        else:
            folder = Path(model) if Path(model).is_dir() else resolve_source(model).path
            name = _file_name(folder.resolve().name if Path(model).is_dir() else model)
            one = Model(name, folder, folder_fingerprint(folder), checked_plan(folder))
        taken, number = {c.name for c in results}, 1
        while (name := one.name if number == 1 else f"{one.name}-{number}") in taken:
            number += 1
        results.append(replace(one, name=name))
    return results


def _file_name(name: str) -> str:
    """A name that is one file's on every system."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "model"


def answer_settings(one: Asked, identity: str, **more: Any) -> dict[str, Any]:
    """What a model's answers to a task depend on."""
    return {
        "task": one.task.name,
        "prompt": one.prompt_version,
        "n": len(one.items),
        "items": one.fingerprint,
        "model": identity,
        "max_tokens": one.max_tokens,
        **more,
    }


def answer_and_score(
    models: Sequence[Model],
    asked: Sequence[Asked],
    out: Path,
    settings: EvalSettings,
    backend: Backend,
    same_prompts: bool = False,
) -> list[Outcome]:
    """All outcomes, the models in their order within each task.

    Args:
        same_prompts: refuse a model that reads other prompt tokens than the first one.

    Raises:
        LostattnError: see `run_eval`.
    """
    for one in asked:
        one.task.rule(settings.harness)
    outcomes: list[Outcome] = []
    for model in models:
        checks = [_prompts_of(one, outcomes, model.name) if same_prompts else None for one in asked]
        outcomes += _evaluate(model, asked, out, settings, backend, checks)
    order = [one.task.name for one in asked]
    return sorted(outcomes, key=lambda o: order.index(o.task))


def _prompts_of(one: Asked, outcomes: Sequence[Outcome], name: str) -> Check | None:
    """A check that a model reads the very prompts that the first one read; None for the first."""
    first = next((o.replies for o in outcomes if o.task == one.task.name), None)
    if first is None:
        return None

    def check(index: int, reply: Reply) -> None:
        if first[index].prompt != reply.prompt:
            raise LostattnError(
                f"item {shown(one.items[index].id)} (row {one.items[index].row}): {name} reads other prompt tokens than the "
                "original, so their answers cannot be compared: both need the same tokenizer, processor and chat template"
            )

    return check


def _evaluate(
    model: Model,
    asked: Sequence[Asked],
    out: Path,
    settings: EvalSettings,
    backend: Backend,
    checks: Sequence[Check | None],
) -> Iterator[Outcome]:
    """Ask one model what it has not answered yet, and score."""
    stores = [
        Answers(
            out / one.task.name / model.name, answer_settings(one, model.identity, **backend.settings), one.items, check
        )
        for one, check in zip(asked, checks, strict=True)
    ]
    with ExitStack() as stack:
        if all(store.done for store in stores):
            logger.info(f"{model.name}: everything was answered before")
        else:
            answer = stack.enter_context(backend.answering(model, asked))
        for one, store in zip(asked, stores, strict=True):
            start = time.perf_counter()
            if not store.done:
                answer(one, store, Rate(f"{one.task.name}, {model.name}", len(one.items), len(store.found)))
            yield score_answers(one, model.name, store, settings.harness, settings.seed, time.perf_counter() - start)


def score_answers(one: Asked, name: str, store: Answers, harness: str, seed: int, seconds: float) -> Outcome:
    """Parse and judge all answers, and write them with what was decided."""
    replies = store.replies
    result = score(one.task, [(i, r.text) for i, r in zip(one.items, replies, strict=True)], harness, seed)
    more = {"prompt_version": one.prompt_version, "parser": result.parser, "harness": harness}
    store.finish([{**d.row(), **more} for d in result.decisions])
    return Outcome(one.task.name, name, result, replies, seconds)


def circumstances(settings: EvalSettings, backend: Backend) -> dict[str, Any]:
    """What every number has to carry."""
    import torch

    return {
        "backend": settings.backend,
        "how": {k: v for k, v in backend.settings.items() if k != "versions"},
        "seed": settings.seed,
        "harness": settings.harness,
        "hardware": hardware(),
        "versions": dict(backend.versions),
        "threads": torch.get_num_threads(),
        "command": command_line(settings.api_key),
    }


def command_line(secret: str | None = None) -> str:
    """The command that runs now, without the key."""
    words = [Path(sys.argv[0]).name.replace("cli.py", "lostattn"), *sys.argv[1:]]
    return shlex.join(w.replace(secret, "...") if secret else w for w in words)


def task_facts(asked: Sequence[Asked], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One entry per task, for reports."""
    results = {o.task: o for o in reversed(outcomes)}
    return [
        {
            "task": one.task.name,
            "n": len(one.items),
            "data": one.data,
            "prompt": one.prompt_version,
            "max_tokens": one.max_tokens,
            "parser": results[one.task.name].score.parser,
            "main": one.task.main,
            "clusters": len(set(labels)) if (labels := clusters(results[one.task.name])) else None,
            "first_prompt": one.items[0].text,
        }
        for one in asked
    ]


def make_report(
    command_name: str,
    models: Sequence[Model],
    asked: Sequence[Asked],
    outcomes: Sequence[Outcome],
    settings: EvalSettings,
    backend: Backend,
) -> dict[str, Any]:
    """What `eval` and `compare` write: models, tasks, results, and what they depend on."""
    return {
        "command_name": command_name,
        "models": [
            {
                "name": m.name,
                "identity": m.identity,
                "plan": describe_plan(m.plan) if m.folder else None,
                "sap": m.plan.to_json() if m.plan else None,
            }
            for m in models
        ],
        "tasks": task_facts(asked, outcomes),
        "results": outcome_rows(outcomes, settings.seed),
        "changed": [q for one in asked for q in changed_questions([o for o in outcomes if o.task == one.task.name])],
        **circumstances(settings, backend),
    }
