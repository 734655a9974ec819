"""digits: the demo's own questions about pictures of handwritten digits.

Rows: `question` (the complete text), `answer` (yes, no, a letter or digits), and if there `options` (a list), `kind`, `image`.
Options are else read from the question ("A. 3 B. 5 C. 7 D. 9").
Prompt: the question as it is.
Parser: with options letters.py; where the answer is digits, the response's own digits if it holds nothing else ("3, 5" is 35),
else numerals.py; else yesno.py. Unparsed is wrong.
Metrics: accuracy; by kind (presence, choice, count, largest, right, read).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import letters, numerals, yesno
from .measure import accuracy, breakdown
from .row import Row, options_of
from .task import NATIVE, Answer, Item, Judged, Task, exact_rule, register_task

_LISTED = re.compile(r"(?<!\w)([A-Z])\. (\S+)")
_NUMBER, _ALONE = re.compile(r"\d"), re.compile(r"[\s.,]*\d[\d\s.,]*")
_DIGIT = re.compile(r"\bis there an? (\d)", re.I)


def _item(row: Row) -> Item:
    question, images = row.text("question"), row.images("image")
    options = options_of(row.listed("options")) or dict(_LISTED.findall(question))
    digit, answer = _DIGIT.search(question), row.text("answer").strip()
    kind = "choice" if options else "number" if answer.isdecimal() else "presence"
    name = str(row.get("id") or row.number)
    return Item(
        id=name,
        cluster=row.cluster(images, name),
        groups={"kind": str(row.get("kind") or kind)},
        prompt=(0, question),
        gold=_gold(row, options, answer),
        options=options,
        images=images,
        details={"object": digit[1] if digit else "", "number": answer.isdecimal()},
    )


def _gold(row: Row, options: dict[str, str], answer: str) -> str:
    if options:
        return row.letter(options, "answer")
    return answer if answer.isdecimal() else row.one_of({"yes": "yes", "no": "no"}, "answer")


def _parse(response: str, item: Item) -> Answer | None:
    if item.options:
        return letters.choose(response, item.options)
    if item.details["number"]:
        return "".join(_NUMBER.findall(response)) if _ALONE.fullmatch(response) else numerals.number(response)
    return yesno.yes_or_no(response, item.details["object"])


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    return {"accuracy": accuracy(judged)} | breakdown(judged, "kind")


register_task(
    Task(
        name="digits",
        summary="The demo's handwritten digits: is there a 7, how many 3s, read on from the 5",
        hub="",
        splits=("validation", "test", "train"),
        needs="question and answer (yes, no, a letter or digits)",
        prompts={"default": _item},
        version="1",
        rules={NATIVE: exact_rule(f"{letters.VERSION}, {yesno.VERSION}, {numerals.VERSION}", _parse)},
        measure=_measure,
    )
)
