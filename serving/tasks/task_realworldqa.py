"""RealWorldQA: questions about everyday pictures, some with lettered options, some open (a number, a word).

Rows: `question`, `answer`, and if there `image_path`, `image`; options are read from the lines "A. ..." of the question, or from
the fields A, B, C, ... if there are any.
Prompt: the question as it is; it says itself how to answer. With options in fields, they are put behind it.
Parser: with options letters.py. Open answers free_text.py; unparsed is only an empty one or a refusal.
Right is the letter; an open answer if it says the same as the gold answer ("three" and "3 cars" are "3").
Metrics: accuracy, also of the questions with options and of the open ones.
Harnesses: lmms-eval ranks all letters by their form, and wants open answers exactly, but for case and the last full stop;
vlmevalkit infers a letter or an option's text; its data has no open questions, so it gives them no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import free_text, harness_lmms, harness_vlmevalkit, letters
from .measure import accuracy, breakdown
from .row import Row
from .task import NATIVE, Answer, Item, Judged, Rule, Task, exact_rule, register_task

_LINES = re.compile(r"(?m)^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$")


def _item(row: Row) -> Item:
    question, images = row.text("question").strip(), row.images("image", "image_path")
    fields = row.lettered()
    options = fields or dict(_LINES.findall(question))
    gold = row.text("answer").strip()
    listed = "".join(f"\n{letter}. {text}" for letter, text in fields.items())
    if options and gold.strip("().").upper() in options:
        gold = gold.strip("().").upper()
    elif fields or gold.upper() in ("A", "B", "C", "D"):
        raise row.error(
            f"has the answer {gold[:20]!r}, which is no letter of its options {', '.join(options) or '(none)'}"
        )
    else:
        options = {}
    name = str(row.get("id", "index", "question_id") or row.number)
    return Item(
        id=name,
        cluster=row.cluster(images, name, "image_path"),
        groups={"kind": "options" if options else "open"}
        | ({"category": str(c)} if (c := row.get("category")) else {}),
        prompt=(0, question + listed + ("\nAnswer with the option's letter directly." if fields else "")),
        gold=gold,
        options=options,
        images=images,
    )


def _parse(response: str, item: Item) -> Answer | None:
    return letters.choose(response, item.options) if item.options else free_text.open_answer(response)


def _correct(answer: Answer, item: Item) -> bool:
    if item.options or not isinstance(answer, str):
        return answer == item.gold
    return free_text.same(answer, str(item.gold))


def _lmms(response: str, item: Item) -> Answer | None:
    if item.options:
        return harness_lmms.ranked_letter(response, "ABCD")
    return response.lower().strip().rstrip(".") or None


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    return {"accuracy": accuracy(judged)} | breakdown(judged, "kind", "category")


register_task(
    Task(
        name="realworldqa",
        summary="Everyday pictures; letters, numbers, single words",
        hub="lmms-lab-encoder/RealWorldQA",
        splits=("test",),
        needs="question and answer",
        prompts={"default": _item},
        version="1",
        rules={
            NATIVE: Rule(f"{letters.VERSION}, {free_text.VERSION}", _parse, _correct),
            "lmms-eval": Rule(
                harness_lmms.VERSION,
                _lmms,
                lambda answer, item: answer == (item.gold if item.options else str(item.gold).lower()),
            ),
            "vlmevalkit": exact_rule(
                harness_vlmevalkit.VERSION,
                lambda text, item: harness_vlmevalkit.infer(text, item.options) if item.options else None,
            ),
        },
        measure=_measure,
    )
)
