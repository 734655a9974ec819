"""`lostattn score`."""

from __future__ import annotations

from pathlib import Path

import click

from .base import json_option, print_json, print_table, tell
from .choices import HARNESS, TASK

COUNTS = ("n", "unparsed", "guessed", "sets")


@click.command(short_help="Score answers that were made elsewhere.")
@click.option("--task", "name", type=TASK, required=True, help="Which benchmark, see lostattn tasks.")
@click.option(
    "--responses",
    required=True,
    type=click.Path(path_type=Path),
    help="JSONL, JSON, CSV, TSV or parquet: in each row the task's fields and `response`.",
)
@click.option("--harness", type=HARNESS, default="lostattn", show_default=True, help="Whose rule reads answers.")
@click.option("--items", type=click.Path(path_type=Path), help="Write every parsed answer to this JSONL file.")
@click.option("--force", is_flag=True, help="Overwrite --items.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="For harnesses that guess where they find nothing."
)
@json_option
def score(name: str, responses: Path, harness: str, items: Path | None, force: bool, seed: int, as_json: bool) -> None:
    """Score answers that were made elsewhere: metrics, how many there are, how many gave no answer.

    Pictures are not needed. An answer that cannot be read is wrong, and counted.

    \b
    Examples:
      lostattn score --task pope --responses answers.jsonl --items parsed.jsonl
      lostattn score --task vmcbench --responses answers.jsonl --harness lmms-eval --json
    """
    from ...patches.errors import LostattnError
    from ...serving.tasks.discover import get_task
    from ...serving.tasks.rows import repeated
    from ...serving.tasks.score import read_responses, write_decisions
    from ...serving.tasks.score import score as measure
    from ..checkpoint.provenance import lostattn_version

    task = get_task(name)
    rule = task.rule(harness)
    if items and items.exists() and not force:
        raise LostattnError(f"{items} exists: choose another --items, or add --force")
    result = measure(task, read_responses(task, responses), harness, seed)
    if items:
        write_decisions(items, result.decisions)
    again = repeated([d.judged.item for d in result.decisions])
    if again:
        tell(f"note: {again} rows have an id that an earlier row has too; all are counted")
    counts = {k: int(v) for k, v in result.metrics.items() if k in COUNTS}
    shares = {k: v for k, v in result.metrics.items() if k not in COUNTS}
    if as_json:
        seeded = {"seed": seed} if rule.guesses else {}
        about = {"task": task.name, "responses": responses.name, "harness": harness, "parser": result.parser, **seeded}
        print_json(
            {**about, "lostattn": lostattn_version(), **counts, "repeated": again, "main": task.main, "metrics": shares}
        )
        return
    tell(f"task {task.name}, rule {harness} ({result.parser})")
    print_table(
        ["metric", "value"],
        [[k, v] for k, v in counts.items()] + [[k, f"{100 * v:.2f} %"] for k, v in shares.items()],
    )
