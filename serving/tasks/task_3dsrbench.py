"""3DSRBench: spatial relations in three dimensions, asked again of the mirrored picture and with the options turned round.

Rows: `qid` (8 characters; "-flip": mirrored picture, "-1", "-2": options in another order, "-flip-1": both), `question`, the
options in A, B, C, D ("nan" or nothing: not there), `answer` (a letter), `category` (12 kinds), and if there `image`.
Without `qid` the `index` stands in for it.
Prompt: "Question: ...", "Options:", the options, "Please select the correct answer from the options above. ", as both harnesses.
Parser: letters.py. Unparsed is wrong.
Metrics: vanilla, share of right rows; flip, a question and its mirrored one both right; circular, all orders of the options
right, mirrored ones apart; flip_circular, all of them right. Those but vanilla only where the data has such rows. Rows by
the 12 kinds, and by the four groups of them. The paper's numbers fit vanilla.
Harnesses: lmms-eval takes the first of eight patterns that occurs; vlmevalkit infers a letter or an option's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import harness_lmms, harness_vlmevalkit, letters
from .measure import accuracy, breakdown, together
from .row import Row
from .task import NATIVE, Item, Judged, Task, exact_rule, register_task

GROUPS = ("height", "location", "orientation", "multi_object")
_QID = re.compile(r"(.+?)(-flip)?(-\d+)?")


def _item(row: Row) -> Item:
    question, options, images = row.text("question").strip(), row.lettered(), row.images("image")
    if not options:
        raise row.error("has no options")
    category, qid = row.text("category").strip(), row.text("qid", "index").strip()
    group = next((g for g in GROUPS if category.lower().startswith(g)), "other")
    match = _QID.fullmatch(qid)
    assert match is not None  # a text that is not empty
    listed = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    return Item(
        id=qid,
        cluster=match[1],
        groups={"group": group} | ({"category": category} if category not in GROUPS else {}),
        prompt=(
            0,
            f"Question: {question}\nOptions:\n{listed}Please select the correct answer from the options above. \n",
        ),
        gold=row.letter(options, "answer"),
        options=options,
        images=images,
        details={"base": match[1], "flip": match[2] or "", "turn": match[3] or ""},
    )


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    results = {"vanilla": accuracy(judged)}
    flipped = any(j.item.details["flip"] for j in judged)
    turned = any(j.item.details["turn"] for j in judged)
    if flipped:
        results["flip"] = together(judged, lambda j: (j.item.details["base"], j.item.details["turn"]))
    if turned:
        results["circular"] = together(judged, lambda j: (j.item.details["base"], j.item.details["flip"]))
    if flipped and turned:
        results["flip_circular"] = together(judged, lambda j: j.item.details["base"])
    return results | breakdown(judged, "group", "category")


register_task(
    Task(
        name="3dsrbench",
        summary="Spatial relations in 3D; vanilla, flip and circular",
        hub="oscarqjh/3DSRBench_lmmseval",
        subset="3dsr_circular",
        splits=("test",),
        needs="qid, question, options in A, B, C, D, answer (a letter) and category",
        prompts={"default": _item},
        version="1",
        rules={
            NATIVE: exact_rule(letters.VERSION, lambda text, item: letters.choose(text, item.options)),
            "lmms-eval": exact_rule(harness_lmms.VERSION, lambda text, item: harness_lmms.first_pattern(text)),
            "vlmevalkit": exact_rule(
                harness_vlmevalkit.VERSION, lambda text, item: harness_vlmevalkit.infer(text, item.options)
            ),
        },
        measure=_measure,
        main="vanilla",
    )
)
