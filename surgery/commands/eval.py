"""`lostattn eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import json_option, print_json, print_table, say
from .serving_options import BehindDashes, vllm_options
from .task_options import task_options


@click.command("eval", cls=BehindDashes)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@task_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for answers and report.")
@click.option("--backend", default="transformers", show_default=True, help="transformers, vllm, or a server's URL.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Items at once at a server.")
@click.option("--api-key", envvar="LOSTATTN_API_KEY", help="Of the server at a URL.  [env: LOSTATTN_API_KEY]")
@click.option("--via", type=click.Choice(["lmms-eval"]), help="Let that harness ask and score; needs a server's URL.")
@json_option
def evaluate(models: tuple[str, ...], out: Path, backend: str, as_json: bool, **given: Any) -> None:
    """Evaluate every MODEL, plain or patched, on benchmark tasks; the first is what the others are held against.

    Every answer is kept as soon as it is there: an interrupted run goes on where it stopped. An answer that cannot be read
    is wrong, and counted. With a URL as backend MODEL is a name on that server. What stands behind -- goes to vLLM.

    \b
    Examples:
      lostattn eval ./qwen ./qwen-sap --task pope --data ./POPE --out results
      lostattn eval ./qwen ./qwen-sap --task vmcbench --task pope --data vmcbench=./VMC --data pope=./POPE --out results
      lostattn eval demo/base demo/noise --task digits --limit 200 --out results
      lostattn eval qwen-sap --task pope --data ./POPE --backend http://127.0.0.1:8000/v1 --out results
    """
    from ...serving.evaluation.report import HEAD, result_rows
    from ..evaluation.run import EvalSettings, run_eval
    from ..evaluation.tasks import read_tasks

    if given["via"]:
        _via_lmms_eval(models, out, backend, given)
        return
    asked = read_tasks(
        given["task"], given["data"], split=given["split"], limit=given["limit"], max_tokens=given["max_tokens"],
        prompt=given["prompt"], reasoning=given["reasoning"], seed=given["seed"],
    )  # fmt: skip
    settings = EvalSettings(
        backend=backend, batch=given["batch"], concurrency=given["concurrency"], dtype=given["dtype"],
        device=given["device"], options=vllm_options(), seed=given["seed"], harness=given["harness"],
        api_key=given["api_key"],
    )  # fmt: skip
    report = run_eval(models, asked, out, settings, say)
    if as_json:
        print_json(report)
        return
    print_table(HEAD, result_rows(report["results"]))
    click.echo(f"\nThe report is the page {out / 'eval.html'}; the same as Markdown and JSON lies beside it.")
