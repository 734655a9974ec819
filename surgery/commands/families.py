"""`lostattn families`."""

from __future__ import annotations

import click

from .base import json_option, print_json, print_table, tell


@click.command(short_help="List the model families: what runs where, and defaults.")
@json_option
def families(as_json: bool) -> None:
    """List the supported model families: what runs where, and the defaults of layers and heads."""
    from ..families import family_states, installed_engine

    result = family_states()
    if as_json:
        print_json([state.to_json() for state in result])
        return
    print_table(
        ["family", "models", "layers", "heads", "video", "vLLM"],
        [
            [
                s.family,
                s.models,
                f"{s.layers[0]}-{s.layers[1]}",
                f"{s.heads[0]}-{s.heads[1]}",
                s.video,
                "served" if s.vllm else "not served",
            ]
            for s in result
        ],
    )
    click.echo("\nWhat a family covers, where it is more than its own:")
    print_table(
        ["family", "text models", "vision towers"],
        [[s.family, ", ".join(s.text_models), ", ".join(s.towers)] for s in result if s.text_models or s.towers],
    )
    click.echo("\nLast tried:")
    print_table(
        ["family", "day", "transformers", "vLLM"],
        [[s.family, s.tried.day, s.tried.transformers, s.tried.vllm or "not served"] for s in result],
    )
    tell(f"vLLM here: {installed_engine()}")
    tell("layers are clipped to a model's depth; --json tells modes, reasons, and where the defaults come from")
