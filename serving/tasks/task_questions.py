r"""questions: free questions about pictures of your own.

Rows: `question`, `answer`, and if there `options` (a list, or fields A, B, C, ...), `image` or `video` (a file),
`kind` (for the breakdown).
What the answer is decides how responses are read: with options a letter (the answer is a letter or the text of one option),
else yes or no, a number, or a text.
Prompt: the question as it is; options that it does not list itself follow, one a line behind their letters, and "Answer
with the option's letter from the given choices directly."
Parser: letters.py, yesno.py, numerals.py, free_text.py. Unparsed is wrong. Numbers are compared as numbers.
Metrics: accuracy; by form of the answer (option, yes_no, number, text), and by kind where rows have one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..data import options_in
from ..shown import shown
from . import free_text, letters, numerals, yesno
from .measure import accuracy, breakdown
from .row import Row, options_of
from .task import NATIVE, Answer, Item, Judged, Rule, Task, register_task
from .wording import canonical

OPTIONS_PROMPT = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")
_THING = re.compile(
    r"\b(?:is|are) there (?:(?:an?|the|any|some) )?(.+?)(?: (?:in|on|at) (?:the|this) (?:image|picture|photo)|\?|$)",
    re.I,
)


def _item(row: Row) -> Item:
    question, images = row.text("question"), row.visuals("image")
    options = options_of(list(options_in(row)))
    form, gold = _gold(row, options)
    thing = _THING.search(question)
    name = str(row.get("id") or row.number)
    kind = {"kind": str(row.get("kind"))} if row.get("kind") else {}
    return Item(
        id=name,
        cluster=row.cluster(images, name),
        groups={"form": form, **kind},
        prompt=(0, prompt_of(question, options)),
        gold=gold,
        options=options,
        images=images,
        details={"form": form, "thing": thing[1] if thing else ""},
    )


def _gold(row: Row, options: Mapping[str, str]) -> tuple[str, str]:
    """Form and value of a row's answer."""
    answer = row.text("answer").strip()
    if not answer:
        raise row.error("has an empty answer")
    if options:
        return "option", _letter(row, answer, options)
    if answer.casefold() in ("yes", "no"):
        return "yes_no", answer.casefold()
    return ("number" if _NUMBER.fullmatch(answer) else "text"), answer


def _letter(row: Row, answer: str, options: Mapping[str, str]) -> str:
    bare = answer.strip("().: ").upper()
    if bare in options:
        return bare
    same = [letter for letter, text in options.items() if canonical(text) == canonical(answer)]
    if len(same) != 1:
        known = "".join(options)
        raise row.error(
            f"has the answer {shown(answer, 60)!r}, none of its options: give a letter of {known} or a text"
        )
    return same[0]


def prompt_of(question: str, options: Mapping[str, str]) -> str:
    """The question, with its options behind it unless it lists them itself."""
    listed = [re.search(rf"(?<!\w){letter}\s*[.):]\s*{re.escape(text)}", question) for letter, text in options.items()]
    if all(listed):
        return question
    lines = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return OPTIONS_PROMPT.format(question=question, options=lines)


def _parse(response: str, item: Item) -> Answer | None:
    form = item.details["form"]
    if form == "option":
        return letters.choose(response, item.options)
    if form == "yes_no":
        return yesno.yes_or_no(response, item.details["thing"])
    if form == "number":
        return numerals.number(response)
    return free_text.open_answer(response)


def _correct(answer: Answer, item: Item) -> bool:
    gold = str(item.gold)
    if item.details["form"] == "number":
        return numerals.value(str(answer)) == float(gold.replace(",", ""))
    if item.details["form"] == "text":
        return free_text.same(str(answer), gold)
    return answer == gold


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    return {"accuracy": accuracy(judged)} | breakdown(judged, "form", "kind")


register_task(
    Task(
        name="questions",
        summary="Free questions of your own: options, yes or no, numbers, texts",
        hub="",
        splits=("test", "validation", "train"),
        needs="question and answer, and optionally options (a list, or A, B, C, ...)",
        prompts={"default": _item},
        version="1",
        rules={
            NATIVE: Rule(
                f"{letters.VERSION}, {yesno.VERSION}, {numerals.VERSION}, {free_text.VERSION}", _parse, _correct
            )
        },
        measure=_measure,
    )
)
