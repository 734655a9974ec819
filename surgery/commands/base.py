"""What all commands share: groups, errors as one sentence, JSON; tables and progress by their own files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import click

from .table import print_table
from .telling import Counter, tell, telling

__all__ = [
    "Counter",
    "Group",
    "Root",
    "UserMistake",
    "json_option",
    "print_json",
    "print_table",
    "refuse_ambiguous",
    "tell",
]

_WHOLE = re.compile(r"[-+]?\d{1,40}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?inf(inity)?", re.ASCII | re.IGNORECASE)


class UserMistake(click.ClickException):
    """One sentence on stderr, exit code 2."""

    exit_code = 2


class Group(click.Group):
    """A click group whose commands are imported when they are asked for, and whose user errors are one sentence.

    Exit codes: 0 done, 1 a check failed, 2 the user's mistake.
    """

    def __init__(self, *args: Any, lazy: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a user's work, as registered."""
        return [*self.lazy, *(n for n in self.commands if n not in self.lazy)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command on first use."""
        if name in self.lazy and name not in self.commands:
            import importlib

            module, attribute = self.lazy[name].split(":")
            self.commands[name] = getattr(importlib.import_module(f"..{module}", __package__), attribute)
        return super().get_command(ctx, name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command; what its options would read from the line otherwise than it stands there is refused."""
        if ctx.resilient_parsing:  # the shell asks how a line could go on
            return super().resolve_command(ctx, args)
        self._refuse_unknown(ctx, args[0])
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, click.Group):
            refuse_ambiguous(ctx, command, name or "", rest)
        return name, command, rest

    def _refuse_unknown(self, ctx: click.Context, name: str) -> None:
        """A mistyped command is told with the nearest one."""
        from ...patches.discover import suggestion

        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no such command '{name[:80]}'{suggestion(name, self.list_commands(ctx))}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a LostattnError ends the command with its sentence and exit code 2."""
        try:
            return super().invoke(ctx)
        except ValueError as error:
            if type(error).__name__ != "LostattnError":
                raise
            raise UserMistake(str(error)) from error


class Root(Group):
    """The command `lostattn` itself, whose help lists its commands under headings."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, lazy={n: where for names in sections.values() for n, where in names.items()}, **kwargs)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every command with its short help, one line each."""
        longest = max(map(len, self.lazy))
        for title, names in self.sections.items():
            results = [(name.ljust(longest), self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, one.short_help or "") for name, one in results if one is not None])

    def invoke(self, ctx: click.Context) -> Any:
        """Run; lines and bars of the libraries go to stderr meanwhile."""
        with telling():
            return super().invoke(ctx)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Called as the process's own command, never from Python code: what needs torch is loaded when it is needed."""
        from .stand_in import stand_in

        stand_in()
        return self.main(*args, **kwargs)


def refuse_ambiguous(parent: click.Context, command: click.Command, name: str, args: list[str]) -> None:
    """Raise UserMistake for an option that is given twice (the last would win), and for numbers in unusual digits.

    Python reads 1_0 and digits of any script as numbers; what a user meant by them, nobody knows. nan is no number.
    """
    context = click.Context(command, parent=parent, info_name=name, **command.context_settings)
    try:
        given, _, order = command.make_parser(context).parse_args(args=list(args))
    except click.UsageError:
        return  # told when the command reads its line
    for param in order:
        if not isinstance(param, click.Option) or param.multiple or param.count:
            continue
        says_two = param.secondary_opts or not param.is_flag
        if says_two and order.count(param) > 1:
            raise UserMistake(f"{'/'.join((*param.opts, *param.secondary_opts))} is given twice: give it once")
        value, kind = given.get(str(param.name)), param.type
        wanted = _WHOLE if isinstance(kind, click.types.IntParamType) else _NUMBER
        if not isinstance(kind, click.types.IntParamType | click.types.FloatParamType) or not isinstance(value, str):
            continue
        if not wanted.fullmatch(value.strip()) and _python_reads(value):
            what = "a whole number such as 7" if wanted is _WHOLE else "a number such as 0.5"
            raise UserMistake(f"{param.opts[-1]} must be {what}, not '{value[:80]}'")


def _python_reads(value: str) -> bool:
    """Whether click would take the text for a number; what it refuses, it tells with the usage."""
    try:
        float(value)
    except ValueError:
        return False
    return True


def print_json(value: Any) -> None:
    """Results as JSON, on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
