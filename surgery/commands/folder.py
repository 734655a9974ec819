"""`lostattn show`, `verify`, `unpatch`: what one does with a patched folder."""

from __future__ import annotations

from pathlib import Path

import click

from .base import json_option, print_json, print_table, tell


@click.command(short_help="Print plan and provenance of a patched folder.")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def show(folder: Path, as_json: bool) -> None:
    """Print the plan and the provenance of a patched FOLDER.

    \b
    Example:
      lostattn show ./qwen2.5-vl-sap
    """
    from ..checkpoint.write import read_patched
    from ..describe import describe_origin, describe_plan

    result = read_patched(folder)
    if as_json:
        print_json({"plan": result.plan.to_json(), "manifest": result.manifest.to_json()})
        return
    for text in describe_plan(result.plan):
        click.echo(text)
    click.echo()
    print_table(["what", "value"], describe_origin(result.manifest))


@click.command(short_help="Check a patched folder against its recorded hashes.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Check sizes, tables and samples of large weights instead of every byte.")
@json_option
def verify(folder: Path, quick: bool, as_json: bool) -> None:
    """Check a patched FOLDER against the hashes recorded when it was made. Exit code 1 if anything differs.

    \b
    Example:
      lostattn verify ./qwen2.5-vl-sap
    """
    from ..checkpoint.write import verify as check

    result = check(folder, quick=quick)
    rows = [[c.file, c.level, "ok" if c.ok else "FAILED", c.problem] for c in result.checks]
    if as_json:
        print_json(
            {
                "ok": result.ok,
                "checks": [dict(zip(("file", "level", "result", "problem"), r, strict=True)) for r in rows],
            }
        )
    else:
        print_table(["file", "checked by", "result", "problem"], rows)
    if not result.ok:
        tell(f"{folder} is not as it was written: patch again, or take it back with care")
        raise SystemExit(1)


@click.command(short_help="Write the original of a patched folder, byte for byte.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    type=click.Choice(["auto", "link", "copy"]),
    default="auto",
    show_default=True,
    help="auto: reflink, else hard link, else copy.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it is a model folder.")
@json_option
def unpatch(folder: Path, out: Path, weights: str, force: bool, as_json: bool) -> None:
    """Write the original of a patched FOLDER to OUT, byte for byte.

    \b
    Example:
      lostattn unpatch ./qwen2.5-vl-sap ./qwen2.5-vl
    """
    from ..checkpoint.belongings import left_out_notes
    from ..checkpoint.write import read_patched
    from ..checkpoint.write import unpatch as take_back

    take_back(folder, out, weights=weights, force=force)
    if as_json:
        print_json({"out": str(out)})
    for note in left_out_notes(read_patched(folder).manifest.left_out):
        tell(f"note: {note}, when this model was patched, so it does not come back")
    tell(f"wrote {out}, byte-equal to what was patched")
