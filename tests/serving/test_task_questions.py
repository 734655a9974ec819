"""Free questions: what the answer decides, what is sent, and how responses are read."""

from __future__ import annotations

from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.task import Item

ANIMALS = ["cat", "dog", "polar bear", "bear"]
TASK = get_task("questions")


def item(answer: Any, options: Any = (), question: str = "Which?", **more: Any) -> Item:
    return TASK.item(Row(12, {"question": question, "answer": answer, "options": options, **more}))


@pytest.mark.parametrize(
    ("answer", "options", "form", "gold"),
    [
        ("b", ANIMALS, "option", "B"),
        ("Dog", ANIMALS, "option", "B"),
        ("(C)", ANIMALS, "option", "C"),
        ("A", ["B", "A"], "option", "A"),
        ("Yes", (), "yes_no", "yes"),
        ("1,000", (), "number", "1,000"),
        ("-3.5e2", (), "number", "-3.5e2"),
        ("The bus", (), "text", "The bus"),
        ("B", '["cat", "dog"]', "option", "B"),
    ],
)
def test_the_answer_decides_the_form(answer: str, options: Any, form: str, gold: str) -> None:
    found = item(answer, options)
    assert (found.groups["form"], found.gold) == (form, gold)
    assert found.groups == {"form": form} and item(answer, options, kind="k").groups == {"form": form, "kind": "k"}


def test_options_in_fields_of_their_own() -> None:
    found = item("B", None, A="cat", B="dog", C="nan")
    assert found.options == {"A": "cat", "B": "dog"} and found.gold == "B"


@pytest.mark.parametrize(
    ("answer", "options"), [("", ()), (None, ()), ("horse", ANIMALS), ("E", ANIMALS), ("x", ["x", "x"])]
)
def test_rows_without_a_usable_answer_are_named(answer: Any, options: Any) -> None:
    with pytest.raises(LostattnError, match="row 12 has"):
        item(answer, options)


def test_options_are_listed_once() -> None:
    bare, listed = item("A", ["3", "5"]), item("A", ["3", "5"], "Which? A. 3 B. 5")
    assert bare.text == "<image>Which?\nA. 3\nB. 5\nAnswer with the option's letter from the given choices directly."
    assert listed.text == "<image>Which? A. 3 B. 5"


@pytest.mark.parametrize(
    ("answer", "options", "response", "right"),
    [
        ("B", ANIMALS, "\\boxed{B}", True),
        ("B", ANIMALS, "It is a dog", True),
        ("C", ANIMALS, "a polar bear", True),
        ("C", ANIMALS, "a bear", False),
        ("B", ANIMALS, "hm", None),
        ("B", ANIMALS, "a cat and a dog", None),
        ("yes", (), "Yes, there is a cat, but no dog.", True),
        ("no", (), "yes and no", None),
        ("7", (), "7.0", True),
        ("1,200", (), "There are 1200 people", True),
        ("0.5", (), "1/2", True),
        ("7", (), "8", False),
        ("7", (), "I cannot say", None),
        ("red bus", (), " The  Red\nBus. ", True),
        ("a red bus", (), "<answer>Red bus</answer>", True),
        ("red bus", (), "blue bus", False),
        ("red bus", (), " . ", None),
    ],
)
def test_responses_are_read_by_the_form(answer: str, options: Any, response: str, right: bool | None) -> None:
    asked = item(answer, options)
    found = TASK.parse(response, asked)
    assert (found is None) == (right is None), found
    assert TASK.judge(asked, found).correct == bool(right)


def test_the_object_that_a_question_asks_for() -> None:
    asked = item("no", question="Is there a dog in the image?")
    assert TASK.parse("I see no dog.", asked) == "no" and TASK.parse("There is a dog.", asked) == "yes"
