"""`lostattn pull`."""

from __future__ import annotations

from pathlib import Path

import click

from .base import json_option, print_json, tell


@click.command(short_help="Fetch a model from the Hub, and verify it if it is patched.")
@click.argument("repo", metavar="USER/NAME")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--revision", help="Branch, tag or commit. Default: main.")
@click.option("--force", is_flag=True, help="Replace FOLDER if it is a model folder.")
@click.option(
    "--timeout", type=float, default=120, show_default=True, help="Give a silent Hub up after so many seconds."
)
@json_option
def pull(repo: str, folder: Path | None, revision: str | None, force: bool, timeout: float, as_json: bool) -> None:
    """Fetch a model from the Hugging Face Hub into FOLDER (default: NAME), and verify it if it is patched.

    After a cut, run the same command again: files that have arrived are not fetched again.

    \b
    Examples:
      lostattn pull me/qwen2.5-vl-sap
      lostattn pull me/qwen2.5-vl-sap ./here --revision v1
    """
    from ..hub.names import count_text, size_text
    from ..hub.pull import pull as fetch

    done = fetch(repo, folder, revision=revision, force=force, timeout=timeout)
    if as_json:
        print_json(vars(done))
    else:
        click.echo(done.path)
    tell(f"{count_text(done.files)}, {size_text(done.size)}, commit {done.commit}")
    if done.left_out:
        tell(f"note: left out {count_text(len(done.left_out))} with the weights in other forms ({done.left_out[0]})")
    if done.patched:
        tell("patched by lostattn, and every file is as it was written; next: lostattn show " + str(done.path))
    else:
        tell("note: not patched by lostattn; its files are as the Hub holds them, more cannot be verified")
