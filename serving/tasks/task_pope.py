r"""POPE: is an object in the picture? Random, popular and adversarial questions, 3,000 each.

Rows: `question`, `answer` (yes or no), `category` (adversarial, popular, random; several with commas between them where
a question is kept once for several settings), and if there `id` or `question_id`, `image_source`, `image`.
Prompt: the question, a line break, "Answer the question using a single word or phrase."
Parser: yesno.py, with the object of the question. Unparsed is wrong.
Metrics: accuracy, precision, recall, F1 of "yes", share of answers that say yes; the same for each setting. A row of
several settings counts once in each, and as often in the overall numbers.
Harnesses: lmms-eval takes the bare words only ("Yes." is wrong); vlmevalkit looks for the word anywhere, if the other one is
not there. Both by their parsers; the metrics stay those above.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from . import harness_lmms, harness_vlmevalkit, yesno
from .measure import by_group, yes_no
from .row import Row
from .task import NATIVE, Item, Judged, Task, exact_rule, register_task

_OBJECT = re.compile(r"\b(?:is|are) there (?:an?|the|any|some)?\s*(.+?) in the (?:image|imange|picture|photo)", re.I)


def _item(row: Row) -> Item:
    question, images = row.text("question").strip(), row.images("image")
    settings = ",".join(s.strip() for s in row.text("category").lower().split(",") if s.strip())
    thing = _OBJECT.search(question)
    name = f"{settings}/{row.get('question_id', 'id', 'index') or row.number}"
    return Item(
        id=name,
        cluster=row.cluster(images, name, "image_source"),
        groups={"setting": settings},
        prompt=(0, f"{question}\nAnswer the question using a single word or phrase."),
        gold=row.one_of({"yes": "yes", "no": "no"}, "answer"),
        images=images,
        details={"object": thing[1] if thing else ""},
    )


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    apart = [
        replace(j, item=replace(j.item, groups={"setting": setting}))
        for j in judged
        for setting in j.item.groups["setting"].split(",")
    ]
    settings = by_group(apart, "setting").items()
    return yes_no(apart) | {f"{s}/{name}": x for s, part in settings for name, x in yes_no(part).items()}


register_task(
    Task(
        name="pope",
        summary="Is the object in the picture? yes or no; random, popular, adversarial",
        hub="lmms-lab-encoder/POPE",
        splits=("test",),
        needs="question, answer (yes or no) and category",
        prompts={"default": _item},
        version="1",
        rules={
            NATIVE: exact_rule(yesno.VERSION, lambda text, item: yesno.yes_or_no(text, item.details["object"])),
            "lmms-eval": exact_rule(harness_lmms.VERSION, lambda text, item: harness_lmms.exact_word(text)),
            "vlmevalkit": exact_rule(harness_vlmevalkit.VERSION, lambda text, item: harness_vlmevalkit.yes_or_no(text)),
        },
        measure=_measure,
    )
)
