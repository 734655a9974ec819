"""`lostattn push`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .base import json_option, print_json, print_table, tell


@click.command(short_help="Push a patched folder to the Hub, in one commit.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("repo", metavar="USER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private if it is new.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of changing the main branch.")
@click.option("--revision", metavar="BRANCH", help="Push to this branch; it is made if it is new.")
@click.option(
    "--base-repo", metavar="USER/BASE", help="The base model on the Hub, for a folder that was patched locally."
)
@click.option("--tag", help="Set this tag on the commit.")
@click.option("--message", help="What the commit says.")
@click.option("--results", type=click.Path(), help="Results for the card: compare.json, eval.json, or rows.")
@click.option("--dry-run", is_flag=True, help="Tell what would be sent; needs no token and sends nothing.")
@click.option("--yes", is_flag=True, help="Yes, it may become public.")
@click.option(
    "--timeout", type=float, default=120, show_default=True, help="Give a silent Hub up after so many seconds."
)
@json_option
def push(folder: Path, repo: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Push a patched FOLDER to the Hugging Face Hub, in one commit.

    The folder is verified first. The token comes from 'hf auth login' or HF_TOKEN. After a cut, run the same command
    again: what has arrived is not sent again.

    \b
    Examples:
      lostattn push ./qwen2.5-vl-sap me/qwen2.5-vl-sap --private
      lostattn push ./qwen2.5-vl-sap me/qwen2.5-vl-sap --private --results comparison/compare.json
      lostattn push ./qwen2.5-vl-sap me/qwen2.5-vl-sap --base-repo Qwen/Qwen2.5-VL-7B-Instruct --dry-run
    """
    from ..hub.push import PushOptions
    from ..hub.push import push as send

    request = PushOptions(repo, **options)
    done = send(folder, request, confirm=_confirm(yes))
    for note in done.notes:
        tell(f"note: {note}")
    if as_json:
        print_json(done.to_json())
        return
    if request.dry_run:
        _print_plan(done)
        return
    tell(", ".join(_counted(done)) or "nothing to change")
    click.echo(done.url)
    click.echo(f"commit {done.commit}")
    for what, value in (("pull request", done.pull_request), ("tag", done.tag)):
        if value:
            click.echo(f"{what} {value}")


def _confirm(yes: bool) -> Callable[[str], bool] | None:
    if yes:
        return lambda _: True
    if sys.stdin.isatty():
        return lambda question: click.confirm(question, err=True)
    return None


def _print_plan(done: Any) -> None:
    from ..hub.names import size_text

    print_table(["file", "is", "bytes", "why"], [[s.name, s.action, f"{s.size:,}", s.why] for s in done.steps])
    total = size_text(sum(step.size for step in done.steps if step.action == "uploaded"))
    kind = "public" if done.public else "private"
    state = "would be made" if done.new else "exists"
    tell(f"{done.repo} ({kind}, {state}): {', '.join(_counted(done))}; at most {total} would be sent")
    tell("dry run: nothing was sent")


def _counted(done: Any) -> list[str]:
    from ..hub.names import count_text, size_text
    from ..hub.steps import totals

    return [f"{count_text(n)} {action} ({size_text(size)})" for action, (n, size) in totals(done.steps).items()]
