"""What a benchmark task is: rows become items with a prompt, answers become decisions, decisions become numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ...patches.errors import LostattnError
from ..data import Example
from ..reading.videos import Clip, VideoFile
from .row import Row

NATIVE = "lostattn"
REASONING_TRIGGER = (
    "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. "
    "The reasoning process MUST BE enclosed within <think> </think> tags. "
    "The final answer MUST BE in <answer> </answer> tags."
)  # appendix C.2 of the paper, for reasoning models

Answer = str | tuple[str | float, ...]


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique in its data set.
        cluster: the same for items that are no independent draws (one picture, or one question asked in variants).
        groups: what the breakdown of the metrics goes by, kind -> group.
        prompt: what the model sees in its order: texts, and numbers of pictures.
        gold: the right answer as the data set writes it.
        options: letter -> text, empty if the question is open.
        images: the pictures, each as a path, bytes, a dict with one of them, or opened, and videos as `VideoFile`; () if the
            row had none.
        details: what this task's parser or metrics need beside that.
        row, folder: where it stands, for messages and for relative file names.
    """

    id: str
    cluster: str
    groups: Mapping[str, str]
    prompt: tuple[str | int, ...]
    gold: str | tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    images: tuple[Any, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    row: int = 0
    folder: Path = Path()

    @property
    def text(self) -> str:
        """The prompt as one text, `<image>` where a picture stands, `<video>` where a video does."""
        marks = ["<video>" if isinstance(image, VideoFile) else "<image>" for image in self.images]
        parts = (marks[p] if isinstance(p, int) and p < len(marks) else p for p in self.prompt)
        return "".join("<image>" if isinstance(part, int) else part for part in parts)

    def opened(self) -> list[Image.Image | Clip]:
        """Pictures, as RGB, and videos in the order of the prompt's numbers; LostattnError names the row."""
        return [Example(self.row, image, "", folder=self.folder).open() for image in self.images]

    def pictures(self) -> list[Image.Image]:
        """The same of an item that has no videos.

        Raises:
            LostattnError: it has one, or one of its pictures cannot be opened; the row is named.
        """
        if any(isinstance(image, VideoFile) for image in self.images):
            raise LostattnError(
                f"row {self.row}: questions about videos are answered in this process only: leave --backend, --server and "
                "harnesses out"
            )
        return [one for one in self.opened() if not isinstance(one, Clip)]


@dataclass(frozen=True)
class Rule:
    """How answers are read and judged.

    Attributes:
        version: recorded with every result; changes when a decision changes.
        parse: (response, item) -> the answer, or None if the response gives none.
        correct: (answer, item) -> is it right?
        guesses: the rule draws one of the item's letters at random where it finds no answer.
    """

    version: str
    parse: Callable[[str, Item], Answer | None]
    correct: Callable[[Answer, Item], bool]
    guesses: bool = False


def exact_rule(version: str, parse: Callable[[str, Item], Answer | None], guesses: bool = False) -> Rule:
    """A rule under which only the gold answer itself is right."""
    return Rule(version, parse, lambda answer, item: answer == item.gold, guesses)


@dataclass(frozen=True)
class Judged:
    """A decision: the answer (None if there is none) and whether it is right."""

    item: Item
    answer: Answer | None
    correct: bool


@dataclass(frozen=True)
class Task:
    """One benchmark.

    Attributes:
        name: as users write it.
        summary: one line for `lostattn tasks`.
        hub: the Hub id of its data, "" if it has none.
        subset: the configuration to read if the data has several; "" means all of them.
        splits: the split to read, the first of these that is there.
        needs: fields of a row, as a sentence.
        prompts: prompt name -> (row, task's prompt) builder of the item; the first is the default.
        version: of the prompts' texts.
        rules: `lostattn` and the harnesses that can be imitated.
        measure: decisions -> named numbers; shares in [0, 1], `group/name` for the breakdown. Never called with none.
        main: the name of the number that the paper's table shows.
    """

    name: str
    summary: str
    hub: str
    splits: tuple[str, ...]
    needs: str
    prompts: Mapping[str, Callable[[Row], Item]]
    version: str
    rules: Mapping[str, Rule]
    measure: Callable[[Sequence[Judged]], dict[str, float]]
    main: str = "accuracy"
    subset: str = ""

    def item(self, row: Row, prompt: str = "", reasoning: bool = False) -> Item:
        """The item of a row; `reasoning` appends the paper's trigger to the prompt. LostattnError names row and field."""
        build = self.prompts[self.prompt_name(prompt)]
        item = build(row)
        if reasoning:
            parts = item.prompt[:-1], item.prompt[-1]
            last = f"{str(parts[1]).rstrip()}\n{REASONING_TRIGGER}"
            item = replace(item, prompt=(*parts[0], last))
        return replace(item, row=row.number, folder=row.folder)

    def prompt_name(self, prompt: str = "") -> str:
        """The default prompt's name for "", else the name itself if there is such a prompt."""
        name = prompt or next(iter(self.prompts))
        if name not in self.prompts:
            raise LostattnError(f"task {self.name} has no prompt '{name}': choose one of {', '.join(self.prompts)}")
        return name

    def prompt_version(self, prompt: str = "", reasoning: bool = False) -> str:
        """What is recorded beside results: task, prompt, version."""
        return f"{self.name}-{self.prompt_name(prompt)}{'+reasoning' if reasoning else ''}/{self.version}"

    def rule(self, harness: str = NATIVE) -> Rule:
        """The rule of that name; LostattnError lists those of this task."""
        if harness not in self.rules:
            raise LostattnError(f"task {self.name} has no rule '{harness}': choose one of {', '.join(self.rules)}")
        return self.rules[harness]

    def parse(self, response: str, item: Item, harness: str = NATIVE) -> Answer | None:
        """The answer that a response gives, or None; never a guess."""
        return self.rule(harness).parse(response, item)

    def judge(self, item: Item, answer: Answer | None, harness: str = NATIVE) -> Judged:
        """Is the answer right? None is wrong."""
        return Judged(item, answer, answer is not None and self.rule(harness).correct(answer, item))

    def metrics(self, answered: Sequence[tuple[Item, Answer | None]], harness: str = NATIVE) -> dict[str, float]:
        """Named numbers of parsed answers; `n` and `unparsed` are counts, all others shares. Raises LostattnError: none."""
        if not answered:
            raise LostattnError(f"there are no answers to task {self.name}: give at least one")
        judged = [self.judge(item, answer, harness) for item, answer in answered]
        counts = {"n": len(judged), "unparsed": sum(j.answer is None for j in judged)}
        return {**counts, **self.measure(judged)}


TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Make a task known; called once by its file."""
    TASKS[task.name] = task
    return task
