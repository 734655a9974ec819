"""The command line: `lostattn`, or `python -m lostattn.surgery.cli`."""

from __future__ import annotations

import click

from .commands.base import Root

SECTIONS = {
    "Surgery": {
        "demo": "commands.demo:demo",
        "plan": "commands.patch:plan",
        "patch": "commands.patch:patch",
        "calibrate": "commands.calibrate:calibrate",
        "frontier": "commands.frontier:frontier",
        "show": "commands.folder:show",
        "verify": "commands.folder:verify",
        "unpatch": "commands.folder:unpatch",
    },
    "Serving": {
        "ask": "commands.ask:ask",
        "serve": "commands.serve:serve",
        "conform": "commands.conform:conform",
        "bench": "commands.bench:bench",
    },
    "Evaluation": {
        "compare": "commands.compare:compare",
        "eval": "commands.eval:evaluate",
        "sweep": "commands.sweep:sweep",
        "score": "commands.score:score",
        "tasks": "commands.tasks:tasks",
    },
    "Understanding": {
        "trace": "commands.trace:trace",
        "diagnose": "commands.diagnose:diagnose",
        "modes": "commands.about:modes",
        "families": "commands.families:families",
        "doctor": "commands.about:doctor",
    },
    "Hub": {
        "push": "commands.push:push",
        "pull": "commands.pull:pull",
    },
}
COMMANDS = {name: target for names in SECTIONS.values() for name, target in names.items()}


EPILOG = """\b
Completion in the shell, of commands, options and their values:
  eval "$(_LOSTATTN_COMPLETE=bash_source lostattn)"
"""


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .checkpoint.provenance import lostattn_version

        click.echo(f"lostattn {lostattn_version()}")
        ctx.exit()


@click.group(
    cls=Root,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EPILOG,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def main() -> None:
    """Model surgery for large vision-language models: replace attention to image tokens by a fixed prior.

    Start with `lostattn demo`. Results go to stdout, progress to stderr. Exit code 0: done, 1: a check failed, 2: a
    mistake in what was asked.
    """


if __name__ == "__main__":
    main(prog_name="lostattn")
