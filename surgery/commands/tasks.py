"""`lostattn tasks`."""

from __future__ import annotations

import click

from .base import json_option, print_json, print_table


@click.command(short_help="List the benchmark tasks: data, prompts, parsers.")
@json_option
def tasks(as_json: bool) -> None:
    """List the benchmark tasks: their data, prompts, parsers."""
    from ...serving.tasks.discover import all_tasks

    rows = [
        {
            "task": t.name,
            "main metric": t.main,
            "data": t.hub or "none; give --data",
            "split": t.splits[0],
            "prompts": ", ".join(t.prompts),
            "rules": ", ".join(t.rules),
            "questions": t.summary,
        }
        for t in all_tasks().values()
    ]
    if as_json:
        more = [
            {
                "needs": t.needs,
                "prompt versions": [t.prompt_version(p) for p in t.prompts],
                "parsers": {name: rule.version for name, rule in t.rules.items()},
            }
            for t in all_tasks().values()
        ]
        print_json([{**a, **b} for a, b in zip(rows, more, strict=True)])
        return
    print_table(["task", "main metric", "questions"], [[t.name, t.main, t.summary] for t in all_tasks().values()])
    click.echo("\nWhere their data is (--data takes other), their prompts, and whose rules read the answers:")
    print_table(
        ["task", "data", "prompts", "rules"],
        [
            [t.name, f"{t.hub}#{t.splits[0]}" if t.hub else t.name, ", ".join(t.prompts), ", ".join(t.rules)]
            for t in all_tasks().values()
        ],
    )
