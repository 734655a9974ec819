"""Options with known values: listed in help, completed by the shell, and a wrong one is refused with the nearest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from ...patches.discover import names_of, suggestion
from ...patches.plan import PRESETS, QUERIES, RANK_BY, SCORES
from ...serving.gpus import GPUS
from ..model_folder import DTYPES
from ..written import constant
from .base import UserMistake

Names = Sequence[str] | Callable[[], Sequence[str]]


class OneOf(click.ParamType):
    """A word of a list that may be read when it is needed.

    Args:
        what: what the words are, for messages.
        names: the words, or what finds them.
        also: whether a word is taken that is none of them; whoever uses it judges it.
        more: what such a word is, for help.
    """

    name = "choice"

    def __init__(self, what: str, names: Names, also: Callable[[str], bool] = lambda _: False, more: str = "") -> None:
        self.what, self._names, self._also, self.more = what, names, also, more

    @property
    def choices(self) -> Sequence[str]:
        """The words."""
        return self._names() if callable(self._names) else self._names

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The words as help shows them."""
        return f"[{'|'.join([*self.choices, *filter(None, [self.more])])}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word itself; UserMistake if there is no such word."""
        if value not in self.choices and not self._also(str(value)):
            raise UserMistake(self.refusal(str(value)))
        return value

    def refusal(self, value: str) -> str:
        """The sentence about a word that is none of them."""
        near, known = suggestion(value, self.choices), ", ".join(self.choices)
        more = f", or give a {self.more}" if self.more else ""
        return f"unknown {self.what} '{value[:80]}'{near}: choose one of {known}{more}"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words that begin so."""
        return [CompletionItem(name) for name in self.choices if name.startswith(incomplete)]


def task_names() -> list[str]:
    """All benchmark tasks."""
    from ...serving.tasks.discover import task_names as found

    return found()


def harness_names() -> list[str]:
    """All rules of all tasks, lostattn's own first."""
    from ...serving.tasks.discover import all_tasks
    from ...serving.tasks.task import NATIVE

    names = {rule for task in all_tasks().values() for rule in task.rules}
    return [NATIVE, *sorted(names - {NATIVE})]


def mode_names() -> list[str]:
    """All modes."""
    return names_of("mode")


MODE = OneOf("mode", mode_names)
TASK = OneOf("task", task_names)
ANY_TASK = OneOf("task", task_names, also=lambda _: True)  # of lmms-eval too; whoever asks it judges
HARNESS = OneOf("harness", harness_names)
PRESET = OneOf("preset", PRESETS)
SCORE_RULE = OneOf("scores", SCORES)
ROWS = OneOf("queries", QUERIES)
BENCH_PLAN = OneOf(
    "plan",
    lambda: constant("surgery/bench_sides.py", "READY"),
    also=lambda word: word.endswith((".yaml", ".yml")),
    more="FILE.yaml",
)
GPU = OneOf("GPU", tuple(GPUS), also=lambda word: word.lower() in GPUS)
RANKING = OneOf("rank_by", RANK_BY)
BACKEND = OneOf("backend", ("transformers", "vllm"), also=lambda word: "://" in word, more="URL")
DTYPE = OneOf("dtype", DTYPES)
PATH = OneOf("attention path", lambda: constant("patches/call.py", "PATHS"))
TOKENS = OneOf("tokens", lambda: constant("surgery/diagnosis/samples.py", "TOKENS"))
GRID = OneOf(
    "sweep",
    lambda: constant("surgery/sweep/ready.py", "READY"),
    also=lambda word: word.endswith((".yaml", ".yml")),
    more="FILE.yaml",
)
