"""Options that commands with vLLM behind them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

GIB = 2**30


def positive_numbers(text: str, what: str) -> tuple[int, ...]:
    """`256,1024` as ascending numbers of 1 or more. Raises LostattnError."""
    from ...patches.errors import LostattnError
    from ..ranges import parse_numbers

    results = tuple(parse_numbers(text, what))
    if results and results[0] < 1:
        raise LostattnError(f"{what} must be 1 or more, not {results[0]}")
    return results


def budget_bytes(gib: float | None) -> int | None:
    """GiB as bytes."""
    return None if gib is None else int(gib * GIB)


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--kv-budget and --together."""
    for option in reversed(
        [
            click.option(
                "--kv-budget",
                type=click.FloatRange(0, min_open=True),
                help="GiB of each server's KV pool.  [default: what BASE needs at the largest load]",
            ),
            click.option(
                "--together/--one-by-one",
                "together",
                default=None,
                help="All servers alive at once, or one after the other.  [default: by free memory; GPUs one by one]",
            ),
        ]
    ):
        command = option(command)
    return command


class BehindDashes(click.Command):
    """A command whose arguments behind `--` go to vLLM instead of being folders."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The pieces of the usage line, with what may stand behind `--`."""
        return [*super().collect_usage_pieces(ctx), "[-- VLLM_OPTIONS]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take away what stands behind the first `--` and keep it for `vllm_options`."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["vllm_options"] = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])


def vllm_options() -> tuple[str, ...]:
    """What stood behind `--`."""
    results: tuple[str, ...] = click.get_current_context().meta.get("vllm_options", ())
    return results
