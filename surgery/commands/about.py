"""`lostattn modes`, `doctor`."""

from __future__ import annotations

import click

from .base import json_option, print_json, print_table, say


@click.command()
@json_option
def modes(as_json: bool) -> None:
    """List the modes: where a prior can come from."""
    from ... import patches  # noqa: F401 - registers them
    from ...patches.mode import MODES

    rows = [
        {"mode": m.name, "options": "; ".join(f"{k}: {', '.join(v)}" for k, v in m.options.items()), "prior": m.summary}
        for m in MODES.values()
    ]
    print_json(rows) if as_json else print_table(list(rows[0]), [list(r.values()) for r in rows])


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Tell what of this installation works. Exit code 1 if the core does not."""
    from ..doctor import diagnose

    found = diagnose()
    if as_json:
        print_json([vars(c) for c in found])
    else:
        print_table(["part", "state", "detail"], [[c.part, c.state, c.detail] for c in found])
    if any(c.state == "broken" for c in found):
        say("mend what is broken, then run lostattn doctor again")
        raise SystemExit(1)
