"""`lostattn eval --via lmms-eval`: that harness asks a server; of our tasks its answers are kept and read like all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.lmms import lmms_command, read_results
from .backends import TRANSFORMERS, ThroughLmmsEval, check_url
from .evaluate import EvalSettings, circumstances, read_models, run_eval
from .tasks import DEMO, Asked


def run_via_lmms(
    models: Sequence[str],
    own: Sequence[str],
    local: Sequence[Asked],
    out: Path,
    settings: EvalSettings,
    limit: int | None = None,
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """Let lmms-eval evaluate models.

    Args:
        own: tasks as lmms-eval names them, with its own data from the Hub. limit, max_tokens: of these.
        local: tasks with items of ours: `out/eval.json` is the report about them.

    Returns:
        The report, as in `out/lmms-eval.json`: per model lmms-eval's metrics, and of local tasks those of our rule.

    Raises:
        LostattnError: no server, lmms-eval is missing or fails, requests that failed.
    """
    if settings.backend == TRANSFORMERS:
        raise LostattnError("lmms-eval asks a server: give --backend vllm, or the URL of one")
    if settings.remote:
        check_url(settings.backend)
    lmms_command()
    url = settings.backend.rstrip("/") if settings.remote else None
    backend = ThroughLmmsEval(
        url, settings.options, settings.concurrency, settings.seed, settings.api_key, out / "lmms-eval"
    )
    opened = read_models(models, settings)
    rows: list[dict[str, Any]] = [{"model": model.name, "lmms-eval": {}, "lostattn": {}} for model in opened]
    report = {"models": rows, **circumstances(settings, backend)}
    if local:
        results = run_eval(models, local, out, settings, backend)
        for row, model in zip(rows, opened, strict=True):
            for one in local:
                row["lmms-eval"] |= read_results(backend.results(model, one))
                mine = next(r for r in results["results"] if (r["model"], r["task"]) == (model.name, one.task.name))
                row["lostattn"][one.task.name] = mine["metrics"]
    for row, model in zip(rows, opened, strict=True):
        if own:
            place = backend.place / model.name / "own"
            with backend.endpoint(model, local) as (at, name):
                backend.run(at, name, own, place, folder=None, limit=limit, max_tokens=max_tokens)
            row["lmms-eval"] |= read_results(place)
    with disk_errors(f"cannot write {out}"):
        write_json(out / "lmms-eval.json", report)
    return report


def split_tasks(names: Sequence[str], data: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tasks that lmms-eval brings itself, and those of ours: `digits`, and all that --data names."""
    if not data:
        return [n for n in names if n != DEMO], [n for n in names if n == DEMO]
    if any("=" not in text for text in data):
        return [], list(names)
    named = {text.partition("=")[0] for text in data}
    return [n for n in names if n not in named | {DEMO}], [n for n in names if n in named | {DEMO}]
