"""`lostattn eval --via lmms-eval`: that harness asks a server; of local data its answers are read by our rules as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.lmms import arguments, lmms_command, read_results, read_samples, run_lmms, write_task
from ...serving.tasks.score import score
from .remote import served
from .run import TRANSFORMERS, EvalSettings, Say, check_backend, circumstances, contestants
from .tasks import DEMO, Asked


def run_via_lmms(
    models: Sequence[str],
    own: Sequence[str],
    local: Sequence[Asked],
    out: Path,
    settings: EvalSettings,
    limit: int | None = None,
    max_tokens: int | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Let lmms-eval evaluate models.

    Args:
        own: tasks as lmms-eval names them, with its own data from the Hub. limit, max_tokens: of these.
        local: tasks with items of ours.

    Returns:
        The report, as in `out/lmms-eval.json`: per model lmms-eval's metrics, and of local tasks those of our rule.

    Raises:
        LostattnError: no server, lmms-eval is missing or fails, requests that failed.
    """
    if settings.backend == TRANSFORMERS:
        raise LostattnError("lmms-eval asks a server: give --backend vllm, or the URL of one")
    check_backend(settings.backend)
    command, found = lmms_command(), contestants(models, settings)
    with disk_errors(f"cannot write {out}"):
        out.mkdir(parents=True, exist_ok=True)
    folder = out / "lmms-eval" / "tasks"
    names = [write_task(one.task.name, one.items, folder, one.max_tokens) for one in local]
    rows = []
    for model in found:
        place = out / "lmms-eval" / model.name
        with served(model.folder, settings.backend, model.name, local, settings.options, out / "logs", say) as endpoint:
            name = model.asked_as or endpoint.name
            given = arguments(
                endpoint.url, name, [*own, *names], place, folder=folder if local else None, limit=limit if own else None,
                at_once=settings.concurrency, max_tokens=max_tokens if own else None, seed=settings.seed,
            )  # fmt: skip
            say(f"lmms-eval asks {model.name}; its output goes to {place}.log")
            run_lmms([*command, *given], place.with_name(f"{place.name}.log"), settings.api_key)
        rows.append(
            {"model": model.name, "lmms-eval": read_results(place), "lostattn": _ours(local, names, place, settings)}
        )
    report = {"models": rows, **circumstances(settings)}
    with disk_errors(f"cannot write {out}"):
        write_json(out / "lmms-eval.json", report)
    return report


def _ours(local: Sequence[Asked], names: Sequence[str], place: Path, settings: EvalSettings) -> dict[str, Any]:
    out = {}
    for one, name in zip(local, names, strict=True):
        said = read_samples(place, name, one.items)
        found = score(one.task, list(zip(one.items, said, strict=True)), settings.harness, settings.seed)
        out[one.task.name] = {"parser": found.parser, **found.metrics}
    return out


def split_tasks(names: Sequence[str], data: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tasks that lmms-eval brings itself, and those of ours: `digits`, and all that --data names."""
    if not data:
        return [n for n in names if n != DEMO], [n for n in names if n == DEMO]
    if any("=" not in text for text in data):
        return [], list(names)
    named = {text.partition("=")[0] for text in data}
    return [n for n in names if n not in named | {DEMO}], [n for n in names if n in named | {DEMO}]
