"""`lostattn modes`, `doctor`."""

from __future__ import annotations

import click

from .base import json_option, print_json, print_table, tell


@click.command(short_help="List the modes: where a prior can come from.")
@json_option
def modes(as_json: bool) -> None:
    """List the modes: where a prior can come from."""
    from ..written import written

    rows = [
        {"mode": m.name, "options": "; ".join(f"{k}: {', '.join(v)}" for k, v in m.options.items()), "prior": m.summary}
        for m in written("mode")
    ]
    print_json(rows) if as_json else print_table(list(rows[0]), [list(r.values()) for r in rows])


@click.command(short_help="Tell what of this installation works.")
@click.option(
    "--mend", "change", flag_value="mend", help="Make torchvision and torchaudio importable for all programs."
)
@click.option("--unmend", "change", flag_value="unmend", help="Take that back.")
@json_option
def doctor(change: str | None, as_json: bool) -> None:
    """Tell what of this installation works. Exit code 1 if a part does not.

    torchvision and torchaudio of another torch cannot be imported: --mend writes two small files into this environment, once,
    so that they can, in every process. It does nothing where they match.
    """
    if change is not None:
        from .. import mend

        done = getattr(mend, change)()
        print_json({"done": done}) if as_json else click.echo(done)
        return
    from ..doctor import diagnose

    result = diagnose()
    if as_json:
        print_json([vars(c) for c in result])
    else:
        print_table(["part", "state", "detail"], [[c.part, c.state, c.detail] for c in result])
    if any(c.state == "broken" for c in result):
        tell("mend what is broken, then run lostattn doctor again")
        raise SystemExit(1)
