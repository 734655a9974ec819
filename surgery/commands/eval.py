"""`lostattn eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .base import json_option, print_json, print_table
from .checks import need_sources
from .choices import BACKEND
from .serving_options import BehindDashes, vllm_options
from .task_options import need_comparison, power_option, read_asked, show_results, task_options

if TYPE_CHECKING:
    from ..evaluation.tasks import Asked


@click.command("eval", cls=BehindDashes, short_help="Evaluate models, plain or patched, on benchmark tasks.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@task_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for answers and report.")
@click.option(
    "--backend", type=BACKEND, default="transformers", show_default=True, help="What answers; a URL: of a server."
)
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Items at once at a server.")
@click.option("--api-key", envvar="LOSTATTN_API_KEY", help="Of the server at a URL.  [env: LOSTATTN_API_KEY]")
@click.option(
    "--via", type=click.Choice(["lmms-eval"]), help="Let that harness ask a server (vllm or a URL) and score."
)
@click.option("--frames", type=click.IntRange(1, 2048), help="Taken out of every video, evenly spaced.  [default: 16]")
@power_option
@json_option
def evaluate(models: tuple[str, ...], out: Path, backend: str, as_json: bool, **given: Any) -> None:
    """Evaluate every MODEL, plain or patched, on benchmark tasks; the first is what the others are held against.

    Every answer is kept as soon as it is there: an interrupted run goes on where it stopped. An answer that cannot be read
    is wrong, and counted. With a URL as backend MODEL is a name on that server. What stands behind -- goes to vLLM.

    \b
    Examples:
      lostattn eval ./qwen ./qwen-sap --task pope --data ./POPE --out results
      lostattn eval ./qwen ./qwen-sap --task vmcbench --task pope --data vmcbench=./VMC --data pope=./POPE --out results
      lostattn eval lostattn-demo/base lostattn-demo/noise --task digits --limit 200 --out results
      lostattn eval ./qwen ./qwen-sap --task videomme --data ./Video-MME/test.parquet --frames 32 --out results
      lostattn eval qwen-sap --task pope --data ./POPE --backend http://127.0.0.1:8000/v1 --out results
    """
    _refuse_unused(backend, given["via"])
    need_comparison(given["power"], len(models))
    if "://" not in backend:
        need_sources(models)
    if given["via"]:
        _via_lmms_eval(models, out, backend, as_json, given)
        return
    asked = _with_frames(read_asked(given), given["frames"])
    from ..evaluation.evaluate import EvalSettings, run_eval

    settings = EvalSettings(
        backend=backend,
        batch=given["batch"],
        concurrency=given["concurrency"],
        dtype=given["dtype"],
        device=given["device"],
        options=vllm_options(),
        seed=given["seed"],
        harness=given["harness"],
        api_key=given["api_key"],
    )
    report = run_eval(models, asked, out, settings)
    if show_results(report, given["power"], as_json):
        click.echo(f"\nThe report is the page {out / 'eval.html'}; the same as Markdown and JSON lies beside it.")


def _with_frames(asked: list[Asked], frames: int | None) -> list[Asked]:
    """The same with that many frames of every video. LostattnError if there is none."""
    from ...patches.errors import LostattnError
    from ..evaluation.tasks import take_frames

    if frames is None:
        return asked
    results = [take_frames(one, frames) for one in asked]
    if results == asked and not any(one.has_videos for one in asked):
        raise LostattnError("--frames is for videos, and the data has none: leave it out")
    return results


IDLE = {"transformers": ("concurrency", "api_key"), "vllm": ("batch", "dtype", "device", "api_key")}
IDLE_AT_URL = ("batch", "dtype", "device")


def _refuse_unused(backend: str, via: str | None) -> None:
    """No option is accepted and ignored."""
    from ...patches.errors import LostattnError

    if via and backend == "transformers":
        return  # is refused with another sentence
    context = click.get_current_context()
    for name in IDLE.get(backend, IDLE_AT_URL):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise LostattnError(f"--{name.replace('_', '-')} changes nothing with --backend {backend}: leave it out")
    if vllm_options() and backend != "vllm":
        raise LostattnError(f"what stands behind -- goes to vLLM, but the backend is {backend}: add --backend vllm")


def _via_lmms_eval(models: tuple[str, ...], out: Path, backend: str, as_json: bool, given: dict[str, Any]) -> None:
    from ...patches.errors import LostattnError
    from ..evaluation.evaluate import EvalSettings
    from ..evaluation.via import run_via_lmms, split_tasks

    if given["frames"]:
        raise LostattnError("lmms-eval takes frames by its own rule: leave --frames out")
    if given["power"]:
        raise LostattnError("--power reads the comparisons of eval itself: leave it out with --via")
    own, ours = split_tasks(given["task"], given["data"])
    if own and (given["split"] or given["prompt"] or given["reasoning"]):
        raise LostattnError(
            f"--split, --prompt and --reasoning are not for lmms-eval's own task {own[0]}: leave them out"
        )
    if own and not ours and given["harness"] != "lostattn":
        raise LostattnError("lmms-eval scores its own tasks by its own rule: leave --harness out")
    if own and ours and (given["limit"] or given["max_tokens"]):
        raise LostattnError(
            "--limit and --max-tokens would hold for one kind of task only: evaluate them one after the other"
        )
    local = read_asked({**given, "task": ours}) if ours or not own else []
    settings = EvalSettings(
        backend=backend,
        concurrency=given["concurrency"],
        options=vllm_options(),
        seed=given["seed"],
        harness=given["harness"],
        api_key=given["api_key"],
    )
    report = run_via_lmms(models, own, local, out, settings, given["limit"], given["max_tokens"])
    if as_json:
        print_json(report)
        return
    rows = [
        [row["model"], who, task, metric, f"{value:.4g}" if isinstance(value, float) else value]
        for row in report["models"]
        for who in ("lmms-eval", "lostattn")
        for task, metrics in row[who].items()
        for metric, value in metrics.items()
        if "stderr" not in metric
    ]
    print_table(["model", "scored by", "task", "metric", "value"], rows)
