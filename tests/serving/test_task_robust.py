"""Whatever a model says: every parser gives an answer that is possible or none, and never raises."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lostattn.serving.tasks.discover import all_tasks
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.task import Item

ABCD = {"A": "cat", "B": "dog", "C": "", "D": "3.5 (cm)"}
ROWS: dict[str, dict[str, Any]] = {
    "pope": {"question": "Is there a (dog in the image?", "answer": "yes", "category": "random"},
    "hallusionbench": {
        **dict.fromkeys(("category", "subcategory", "set_id", "figure_id", "question_id"), "0"),
        "question": "?",
        "gt_answer": "1",
    },
    "realworldqa": {"question": "How many?", "answer": "3"},
    "3dsrbench": {"qid": "AAAAAAAA", "question": "?", **ABCD, "answer": "B", "category": "height_higher"},
    "vmcbench": {"question": "?", **ABCD, "answer": "B", "category": "GQA"},
    "mmmu": {"id": "validation_Art_1", "question": "?", "question_type": "open", "answer": "3"},
    "mathvista": {
        "question": "?",
        "question_type": "free_form",
        "answer_type": "float",
        "precision": 1,
        "answer": "0.5",
    },
    "videomme": {"videoID": "a", "question": "?", "options": ["A. cat", "B. dog"], "answer": "B"},
    "questions": {"question": "What does it say?", "answer": "a red (bus"},
    "digits": {"question": "Which? A. 3 B. 5", "answer": "B"},
}
CASES = [(name, task, rule) for name, task in all_tasks().items() for rule in task.rules]
PIECES = [
    "A",
    "B",
    "(B)",
    "b.",
    "yes",
    "no",
    "not",
    "the answer is",
    "Answer:",
    "so",
    "or",
    "and",
    ",",
    ".",
    "\n",
    "-",
    "1,234",
    "3.5",
    "1e9",
    "1/0",
    "^",
    "10^999",
    "9" * 400,
    "%",
    "=",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "\\boxed{",
    "}",
    "\\frac{1}{2}",
    "$",
    "*",
    "**",
    "½",
    "²",
    "I",
    "cat",
    "dog",
    "none",
    "sorry",
    "cannot tell",
    "but",
    "is",
    "correct",
    "\x00",
    "\ud7ff",
    "é",
    "【",
    "Ｂ",
    "٣",
    "million",
    "[1, 2",
    "]",
    "(",
    "'",
]
SAID = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
)


def item(name: str) -> Item:
    return all_tasks()[name].item(Row(1, ROWS[name]))


@pytest.mark.parametrize(("name", "task", "rule"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
@given(said=SAID)
def test_never_raises(name: str, task: Any, rule: str, said: str) -> None:
    asked = item(name)
    answer = task.parse(said, asked, rule)
    judged = task.judge(asked, answer, rule)
    assert judged.correct in (True, False) and not (answer is None and judged.correct)
    if asked.options and rule == "lostattn":
        assert answer is None or answer in (*asked.options, *asked.options.values())
    assert task.parse(said, asked, rule) == answer


LONG = {
    "words": "the " * 5000,
    "letters": "A " * 5000,
    "brackets": "(" * 9000,
    "answers": "the answer is " * 1500,
    "tags": "<answer>" * 1500,
    "boxes": "\\boxed{" * 1500,
    "numbers": "1,234," * 1500,
    "spaces": " " * 20000 + "B",
    "stops": ". " * 5000,
    "or": "(A) or (B), " * 900,
    "letters of all kinds": string.printable * 80,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_long_answers(text: str) -> None:
    """Patterns that try everything again at every place would not end here; only the first and the last part is read."""
    for name, task, rule in CASES:
        if rule == "lostattn":
            asked = item(name)
            answer = task.parse(text, asked, rule)
            assert not asked.options or answer is None or answer in (*asked.options, *asked.options.values())
    asked = item("vmcbench")
    assert all_tasks()["vmcbench"].parse(f"<think>{text}</think>The answer is B.", asked) == "B"
    assert all_tasks()["pope"].parse(f"{text}</think><answer>yes</answer>", item("pope")) == "yes"
