"""digits: the demo's own questions about pictures of handwritten digits.

Rows: `question` (the complete text), `answer` (yes, no or a letter), and if there `options` (a list), `kind`, `image`. Options
are else read from the question ("A. 3 B. 5 C. 7 D. 9").
Prompt: the question as it is.
Parser: with options letters.py, else yesno.py. Unparsed is wrong.
Metrics: accuracy; by kind (presence, choice).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import letters, yesno
from .measure import accuracy, breakdown
from .row import Row, options_of
from .task import NATIVE, Answer, Item, Judged, Task, exact_rule, register_task

_LISTED = re.compile(r"(?<!\w)([A-Z])\. (\S+)")
_DIGIT = re.compile(r"\bis there an? (\d)", re.I)


def _item(row: Row) -> Item:
    question, images = row.text("question"), row.images("image")
    options = options_of(row.listed("options")) or dict(_LISTED.findall(question))
    digit = _DIGIT.search(question)
    name = str(row.get("id") or row.number)
    return Item(
        id=name,
        cluster=row.cluster(images, name),
        groups={"kind": str(row.get("kind") or ("choice" if options else "presence"))},
        prompt=(0, question),
        gold=row.letter(options, "answer") if options else row.one_of({"yes": "yes", "no": "no"}, "answer"),
        options=options,
        images=images,
        details={"object": digit[1] if digit else ""},
    )


def _parse(response: str, item: Item) -> Answer | None:
    if item.options:
        return letters.choose(response, item.options)
    return yesno.yes_or_no(response, item.details["object"])


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    return {"accuracy": accuracy(judged)} | breakdown(judged, "kind")


register_task(
    Task(
        name="digits",
        summary="The demo's handwritten digits: is there a 7, which of four is there",
        hub="",
        splits=("validation", "test", "train"),
        needs="question and answer (yes, no or a letter)",
        prompts={"default": _item},
        version="1",
        rules={NATIVE: exact_rule(f"{letters.VERSION}, {yesno.VERSION}", _parse)},
        measure=_measure,
    )
)
