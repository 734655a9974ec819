"""HallusionBench: yes-or-no questions about pictures that mislead, and about pictures that were changed.

Rows: `category` (VD, VS), `subcategory`, `set_id`, `figure_id`, `question_id`, `question`, `gt_answer` ("0" or "1"), and if there
`visual_input` ("0": no picture), `filename`, `image`. Questions without a picture are asked without one.
Prompt: the question alone.
Parser: yesno.py; no judge. Unparsed is wrong, also where the official judge lets "unclear" pass (VS, figure 0).
Metrics: aAcc, share of right answers; fAcc, share of figures (category, subcategory, set, figure) whose questions are all right;
qAcc, share of questions (category, subcategory, set, question) that are right for all their figures; also for VD and VS.
The paper's numbers fit aAcc.
Harnesses: lmms-eval asks GPT-4; its rule without a judge is imitated, "yes" anywhere in the answer means yes, else no.
vlmevalkit looks for the word, if the other one is not there.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import harness_lmms, harness_vlmevalkit, yesno
from .measure import accuracy, breakdown, by_group, together
from .row import Row
from .task import NATIVE, Item, Judged, Task, exact_rule, register_task

_GOLD = {"0": "no", "1": "yes", "no": "no", "yes": "yes"}
_FIGURE = ("category", "subcategory", "set_id", "figure_id")
_QUESTION = ("category", "subcategory", "set_id", "question_id")


def _item(row: Row) -> Item:
    keys = {k: row.text(k).strip() for k in (*_FIGURE, "question_id")}
    bare = str(row.get("visual_input")).strip() == "0"
    images = () if bare else row.images("image", "filename")
    name = "_".join(keys.values())
    return Item(
        id=name,
        cluster="_".join(keys[k] for k in ("category", "subcategory", "set_id")),
        groups={"category": keys["category"], "subcategory": f"{keys['category']}_{keys['subcategory']}"},
        prompt=(row.text("question").strip(),) if bare else (0, row.text("question").strip()),
        gold=row.one_of(_GOLD, "gt_answer", "answer"),
        images=images,
        details=keys,
    )


def _figure(judged: Judged) -> tuple[str, ...]:
    return tuple(judged.item.details[k] for k in _FIGURE)


def _question(judged: Judged) -> tuple[str, ...]:
    return tuple(judged.item.details[k] for k in _QUESTION)


def _three(judged: Sequence[Judged]) -> dict[str, float]:
    return {"aAcc": accuracy(judged), "fAcc": together(judged, _figure), "qAcc": together(judged, _question)}


def _measure(judged: Sequence[Judged]) -> dict[str, float]:
    parts = by_group(judged, "category").items()
    return (
        _three(judged)
        | {f"{c}/{name}": x for c, part in parts for name, x in _three(part).items()}
        | breakdown(judged, "subcategory")
    )


register_task(
    Task(
        name="hallusionbench",
        summary="Misleading and changed pictures, yes or no; aAcc, fAcc, qAcc without a judge",
        hub="lmms-lab-encoder/HallusionBench",
        splits=("image", "test"),
        needs="category, subcategory, set_id, figure_id, question_id, question and gt_answer (0 or 1)",
        prompts={"default": _item},
        version="1",
        rules={
            NATIVE: exact_rule(yesno.VERSION, lambda text, item: yesno.yes_or_no(text)),
            "lmms-eval": exact_rule(harness_lmms.VERSION, lambda text, item: harness_lmms.says_yes(text)),
            "vlmevalkit": exact_rule(harness_vlmevalkit.VERSION, lambda text, item: harness_vlmevalkit.yes_or_no(text)),
        },
        measure=_measure,
        main="aAcc",
    )
)
