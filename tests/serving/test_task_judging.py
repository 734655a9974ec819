"""From a row and a response to right or wrong: MMMU, MathVista, RealWorldQA, digits, and the harnesses' decisions."""

from __future__ import annotations

from typing import Any

import pytest
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.row import Row


def right(name: str, values: dict[str, Any], response: str, harness: str = "lostattn") -> bool | None:
    """Is it right? None if there is no answer."""
    task = get_task(name)
    item = task.item(Row(1, values))
    answer = task.parse(response, item, harness)
    return None if answer is None else task.judge(item, answer, harness).correct


OPEN = {"id": "validation_Math_1", "question": "<image 1> What?", "question_type": "open", "options": "[]"}
CHOICE = {
    "id": "validation_Art_2",
    "question": "Who? <image 1>",
    "question_type": "multiple-choice",
    "options": "['Monet', 'Manet', 'Degas']",
    "answer": "B",
}

MMMU = [
    ("7.5", "7.5", True),
    ("7.5", "The answer is 7.50.", True),
    ("7.5", "It is 7.5 cm", True),
    ("7.5", "x = 7.5", True),
    ("7.5", "7.4", False),
    ("1200", "1,200", True),
    ("1,200", "1200", True),
    ("1200", "1.2e3", True),
    ("7.5", "first 7\nthen 7.5", True),
    ("7.5", "75", False),
    ("-5", "-5", True),
    ("0.333", "0.33", True),
    ("cat", "Cat.", True),
    ("cat", "It is a cat", True),
    ("cat", "The answer is dog", False),
    ("cat", "a black cat sits", True),
    ("['cat', 'tom cat']", "tom cat", True),
    ("['5', 'five']", "five", True),
    ("cat", "", None),
    ("cat", " . ", None),
    ("cat", "I cannot determine it.", None),
    ("24/7", "24/7", True),
    ("x", "y", False),
    ("7", "<think>8</think><answer>7</answer>", True),
    ("cat", "<think>cat", None),
]


@pytest.mark.parametrize(("gold", "said", "is_right"), MMMU, ids=repr)
def test_mmmu_open(gold: str, said: str, is_right: bool | None) -> None:
    assert right("mmmu", {**OPEN, "answer": gold}, said) == is_right


@pytest.mark.parametrize(
    ("said", "ours", "lmms", "kit"),
    [
        ("B", True, True, True),
        ("Manet", True, None, True),
        ("The painter must be Manet, I think.", True, True, None),
        ("It is Manet.", True, None, True),
        ("The answer is B because A is by Monet", True, False, True),
        ("(A) or (B)", None, True, None),
        ("", None, None, None),
        ("b", True, None, None),
        ("A", False, False, False),
        ("Manet's teacher", None, None, True),
    ],
    ids=repr,
)
def test_mmmu_options(said: str, ours: bool | None, lmms: bool | None, kit: bool | None) -> None:
    assert [right("mmmu", CHOICE, said, h) for h in ("lostattn", "lmms-eval", "vlmevalkit")] == [ours, lmms, kit]
    assert right("mmmu", {**CHOICE, "options": ["Monet", "Manet"]}, "B") is True


def test_mmmu_open_under_vlmevalkit() -> None:
    row = {**OPEN, "answer": "cat"}
    assert right("mmmu", row, "a cat", "vlmevalkit") is True and right("mmmu", row, "a dog", "vlmevalkit") is None
    assert (
        right("mmmu", row, "Other answers", "vlmevalkit") is False and right("mmmu", row, "a cat", "lmms-eval") is True
    )


def maths(answer: str, kind: str, precision: float | None = None) -> dict[str, Any]:
    return {
        "question": "?",
        "question_type": "free_form",
        "answer_type": kind,
        "answer": answer,
        "precision": precision,
        "choices": None,
    }


MATHS = [
    (maths("14", "integer"), "14", True),
    (maths("14", "integer"), "The number is 14.", True),
    (maths("14", "integer"), "14.0", True),
    (maths("14", "integer"), "14.7", True),
    (maths("14", "integer"), "15", False),
    (maths("14", "integer"), "fourteen", True),
    (maths("14", "integer"), "", None),
    (maths("14", "integer"), "3 or 14", None),
    (maths("-2", "integer"), "minus 2", True),
    (maths("1000", "integer"), "1,000 m", True),
    (maths("45", "integer"), "45%", True),
    (maths("0", "integer"), "45%", False),
    (maths("1.45", "float", 2.0), "$1.45", True),
    (maths("1.45", "float", 2.0), "1.4512", True),
    (maths("1.45", "float", 2.0), "1.5", False),
    (maths("0.6", "float", 1.0), "3/5", True),
    (maths("0.6", "float", 1.0), "60%", True),
    (maths("60.0", "float", 1.0), "60%", True),
    (maths("0.6", "float", 1.0), "\\boxed{\\frac{3}{5}}", True),
    (maths("1.2", "float", 1.0), "1.2 cm", True),
    (maths("1200.0", "float", 1.0), "1.2 × 10³", True),
    (maths("[2007, 2008]", "list"), "between 2007 and 2008", True),
    (maths("[2007, 2008]", "list"), "[2007,2008]", True),
    (maths("[2007, 2008]", "list"), "[2008, 2007]", False),
    (maths("[2007, 2008]", "list"), "[2007]", False),
    (maths("[0.1, 0.2]", "list"), "[0.1, 0.20]", True),
]


@pytest.mark.parametrize(("row", "said", "is_right"), MATHS, ids=lambda x: repr(x) if isinstance(x, str) else "")
def test_mathvista_numbers(row: dict[str, Any], said: str, is_right: bool | None) -> None:
    assert right("mathvista", row, said) == is_right


@pytest.mark.parametrize(
    ("said", "ours", "lmms", "kit"),
    [
        ("B", True, None, True),
        ("(B) 8/11", True, None, True),
        ("8/11", True, True, True),
        ("The answer is (B).", True, None, True),
        ("3/11", False, False, False),
        ("8 / 11", True, None, None),
        ("9/11", None, None, None),
        ("", None, None, None),
        ("A or B", None, None, None),
        ("\\frac{8}{11}", True, None, None),
    ],
    ids=repr,
)
def test_mathvista_options(said: str, ours: bool | None, lmms: bool | None, kit: bool | None) -> None:
    row = {
        "question": "?",
        "question_type": "multi_choice",
        "answer_type": "text",
        "answer": "8/11",
        "choices": ["3/11", "8/11", "6/11", "3/5"],
    }
    assert [right("mathvista", row, said, h) for h in ("lostattn", "lmms-eval", "vlmevalkit")] == [ours, lmms, kit]


def test_mathvista_quick_ways_of_the_harnesses() -> None:
    for harness in ("lmms-eval", "vlmevalkit"):
        assert right("mathvista", maths("14", "integer"), "14", harness) is True
        assert right("mathvista", maths("14", "integer"), "It is 14", harness) is None
        assert right("mathvista", maths("1.45", "float", 2.0), "1.45", harness) is True
    assert right("mathvista", maths("1.45", "float", 2.0), "1.4512", "lmms-eval") is True
    assert right("mathvista", maths("14", "integer"), "15", "lmms-eval") is False


STREET = {
    "question": "Which way?\n\nA. Left\nB. Right\nC. Straight\n\nPlease answer directly with only the letter.",
    "answer": "B",
}

STREETS = [
    (STREET, "B", True),
    (STREET, "B. Right", True),
    (STREET, "right", True),
    (STREET, "A", False),
    (STREET, "D", None),
    (STREET, "You can go right", True),
    ({"question": "How many cars?", "answer": "3"}, "3", True),
    ({"question": "How many cars?", "answer": "3"}, "3.", True),
    ({"question": "How many cars?", "answer": "3"}, "Three", True),
    ({"question": "How many cars?", "answer": "3"}, "3 cars", True),
    ({"question": "How many cars?", "answer": "3"}, "There are three cars.", True),
    ({"question": "How many cars?", "answer": "3"}, "4", False),
    ({"question": "How many cars?", "answer": "3"}, "13", False),
    ({"question": "How many cars?", "answer": "3"}, "3 or 4", False),
    ({"question": "How many cars?", "answer": "3"}, "", None),
    ({"question": "Is it on?", "answer": "Yes"}, "yes, it is.", True),
    ({"question": "Is it on?", "answer": "No"}, "There is no light", True),
    ({"question": "Which lane?", "answer": "Downhill"}, "downhill.", True),
    ({"question": "Which lane?", "answer": "Downhill"}, "The answer is: Downhill", True),
    ({"question": "Which lane?", "answer": "Downhill"}, "uphill", False),
    ({"question": "Which lane?", "answer": "Left"}, "the left", True),
    ({"question": "Which lane?", "answer": "Left"}, "Sorry, I cannot see it.", None),
    ({"question": "Which lane?", "A": "Left", "B": "Right", "answer": "A"}, "Left", True),
    ({"question": "Limit?", "answer": "55"}, "55 mph", True),
]


@pytest.mark.parametrize(("row", "said", "is_right"), STREETS, ids=lambda x: repr(x) if isinstance(x, str) else "")
def test_realworldqa(row: dict[str, Any], said: str, is_right: bool | None) -> None:
    assert right("realworldqa", row, said) == is_right


def test_realworldqa_under_the_harnesses() -> None:
    assert right("realworldqa", STREET, "The answer is B because A is closed", "lmms-eval") is False, (
        "it takes the last"
    )
    assert right("realworldqa", STREET, "Before you turn, look", "lmms-eval") is True, "any capital letter will do"
    assert right("realworldqa", STREET, "You can go right", "vlmevalkit") is True
    three = {"question": "How many?", "answer": "3"}
    assert [right("realworldqa", three, s, "lmms-eval") for s in ("3.", "three", "3 cars", "")] == [
        True,
        False,
        False,
        None,
    ]
    assert right("realworldqa", three, "3", "vlmevalkit") is None


def test_pope_under_the_harnesses() -> None:
    row = {"question": "Is there a dog in the image?", "answer": "yes", "category": "random"}
    table = {
        "Yes": (1, 1, 1),
        "Yes.": (1, None, 1),
        "Yes, there is no doubt.": (1, None, None),
        "There is a dog.": (1, None, None),
        "no": (0, 0, 0),
        "**Yes**": (1, None, None),
    }
    for said, wanted in table.items():
        found = tuple(right("pope", row, said, h) for h in ("lostattn", "lmms-eval", "vlmevalkit"))
        assert found == tuple(None if w is None else bool(w) for w in wanted), said


def test_3dsrbench_under_the_harnesses() -> None:
    row = {
        "qid": "AAAAAAAA",
        "question": "Which?",
        "A": "left",
        "B": "right",
        "answer": "B",
        "category": "height_higher",
    }
    assert [right("3dsrbench", row, "A bus is on the right", h) for h in ("lostattn", "lmms-eval", "vlmevalkit")] == [
        True,
        False,
        None,
    ]


def test_digits() -> None:
    choice = {"question": "Which of these digits is in the image? A. 3 B. 5 C. 7 D. 9", "answer": "C"}
    assert [right("digits", choice, s) for s in ("C", "c.", "7", "A", "8", "")] == [True, True, True, False, None, None]
    assert right("digits", {**choice, "options": ["3", "5", "7", "9"]}, "(C)") is True
    presence = {"question": "Is there a 7 in the image?", "answer": "yes"}
    assert [right("digits", presence, s) for s in ("yes", "There is a 7.", "no", "7?", "")] == [
        True,
        True,
        False,
        None,
        None,
    ]
