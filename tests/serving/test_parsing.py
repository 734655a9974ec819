"""What answers say."""

from __future__ import annotations

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.data import Example
from lostattn.serving.judging.parsing import Expected, expected, parse
from lostattn.serving.judging.questions import make_questions

ANIMALS = ("cat", "dog", "polar bear", "bear")
OPTION = Expected("option", "B", ANIMALS)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("b", "B"), ("B.", "B"), ("(B)", "B"), ("**B**", "B"), ("B) dog", "B"), ("B. a dog\nbecause", "B"),
        ("The answer is B.", "B"), ("Answer: (C)", "C"), ("dog", "B"), ("The dog.", "B"), ("It is a dog", "B"),
        ("I would say (D) here", "D"), ("A cat", "A"), ("polar bear", "C"), ("E", None), ("", None), ("hm", None),
        ("a cat and a dog", None), ("(A) or (B)", None), ("The answer is a dog", "B"), ("Beards", None),
        ("It is a polar bear", "C"), ("(A) is wrong, the answer is (B)", "B"),
    ],
)  # fmt: skip
def test_options(answer: str, letter: str | None) -> None:
    assert parse(answer, OPTION) == letter


@pytest.mark.parametrize(
    ("answer", "said"),
    [("yes", "yes"), ("Yes.", "yes"), ("No, there is none", "no"), ("yes and no", None), ("nothing", None), ("", None)],
)
def test_yes_no(answer: str, said: str | None) -> None:
    assert parse(answer, Expected("yes_no", "yes")) == said


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("7", "7"), ("7.0", "7"), ("There are 1,200 people", "1200"), ("-3", "-3"), ("3 + 4 = 7", "7"), (".5", "0.5"),
        ("Of 9 cups the answer is 4", "4"), ("1 or 2", None), ("seven", None), ("4, I repeat: 4", "4"),
    ],
)  # fmt: skip
def test_numbers(answer: str, number: str | None) -> None:
    assert parse(answer, Expected("number", "7")) == number


def test_texts() -> None:
    assert parse(" The  Red\nBus. ", Expected("text", "red bus")) == "red bus"
    assert parse(" . ", Expected("text", "red bus")) is None


def row(answer: str, options: tuple[str, ...] = (), question: str = "Which?") -> Example:
    return Example(12, b"", question, answer, options)


@pytest.mark.parametrize(
    ("example", "kind", "value"),
    [
        (row("b", ANIMALS), "option", "B"), (row("Dog", ANIMALS), "option", "B"), (row("Yes"), "yes_no", "yes"),
        (row("1,000"), "number", "1000"), (row("The bus"), "text", "bus"), (row("A", ("B", "A")), "option", "A"),
    ],
)  # fmt: skip
def test_what_is_expected(example: Example, kind: str, value: str) -> None:
    found = expected(example)
    assert (found.kind, found.value) == (kind, value)


@pytest.mark.parametrize(
    "example", [row(""), row("horse", ANIMALS), row("E", ANIMALS), row("x", ("x", "x")), row("A", ("y",) * 27)]
)
def test_rows_without_a_usable_answer_are_named(example: Example) -> None:
    with pytest.raises(LostattnError, match="row 12"):
        expected(example)


def test_options_are_listed_once() -> None:
    bare, listed = make_questions([row("A", ("3", "5")), row("A", ("3", "5"), "Which? A. 3 B. 5")])
    assert bare.text == "Which?\nA. 3\nB. 5\nAnswer with the option's letter from the given choices directly."
    assert listed.text == "Which? A. 3 B. 5"
