"""What stands around an answer does not change what is read: prose, tags, Markdown, TeX, thoughts, further turns."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lostattn.serving.tasks.free_text import open_answer
from lostattn.serving.tasks.letters import choose
from lostattn.serving.tasks.numerals import number
from lostattn.serving.tasks.plain import answer_part
from lostattn.serving.tasks.yesno import yes_or_no

COLOURS = {"A": "red", "B": "blue", "C": "green", "D": "yellow"}
NUMBERS = {
    "12": "12",
    "-5": "-5",
    "12,500": "12500",
    "3.25": "3.25",
    "1/2": "0.5",
    r"\frac12": "0.5",
    "12{,}500": "12500",
    "45%": "45%",
    "12 500": "12500",
}
DRESSES = [
    "{}",
    "{}.",
    "**{}**",
    "*{}*",
    " {} \n",
    r"\boxed{{{}}}",
    r"$\boxed{{{}}}$",
    "<answer>{}</answer>",
    "<ANSWER> {} </ANSWER>",
    "<answer>\\boxed{{{}}}</answer>",
    "<|begin_of_box|>{}<|end_of_box|>",
    "<answer><|begin_of_box|>{}<|end_of_box|></answer>",
    "<CONCLUSION> {} </CONCLUSION>",
    "<final_answer>{}</final_answer>",
    "The answer is {}.",
    "Answer: {}",
    "**Answer:** {}",
    "**Final answer: {}**",
    "<|begin_of_solution|>{}<|end_of_solution|>",
    "### Answer\n{}",
    "答案是{}。",
    "La réponse est {}.",
    "정답: {}",
    "The final answer is: {}",
]
BEFORE = [
    "",
    "<think>perhaps 7, perhaps B, no, yes</think>\n",
    "[THINK]A? 3? no[/THINK]",
    "A or 3, yes</think>\n",
    "<reasoning>It is A, 4, no.</reasoning>\n",
    "◁think▷B or 9? yes◁/think▷",
    "Looking at the picture carefully.\n\n",
    "<|begin_of_thought|>C, 8, yes?<|end_of_thought|>\n",
    "ASSISTANT: ",
    "<|im_start|>assistant\n",
    "<SUMMARY>Look.</SUMMARY><CAPTION>A road.</CAPTION><REASONING>So.</REASONING>\n",
]
BEHIND = [
    "",
    "</s>",
    "<|im_end|>",
    "<|eot_id|>",
    "\nUSER: And now?\nASSISTANT: A, 99, no",
    "</s>no",
    "\n### Human: B? 77?",
    "<|im_end|>\n<|im_start|>user\nSure? A? 8?<|im_end|>",
    "\n\nQuestion: How about the other?\nAnswer: no, A, 44",
]


@st.composite
def surrounded(draw: st.DrawFn, said: str) -> str:
    dress = draw(st.sampled_from(DRESSES)).format(said)
    return draw(st.sampled_from(BEFORE)) + dress + draw(st.sampled_from(BEHIND))


@given(data=st.data(), letter=st.sampled_from("ABCD"), form=st.sampled_from(["{}", "({})", "{}. {t}", "option {}"]))
def test_letters(data: st.DataObject, letter: str, form: str) -> None:
    said = data.draw(surrounded(form.format(letter, t=COLOURS[letter])))
    assert choose(said, COLOURS) == letter


@given(data=st.data(), written=st.sampled_from(list(NUMBERS)))
def test_numbers(data: st.DataObject, written: str) -> None:
    said = data.draw(surrounded(written))
    assert number(said) == NUMBERS[written]


@given(data=st.data(), word=st.sampled_from(["yes", "no", "Yes", "No", "YES"]))
def test_yes_and_no(data: st.DataObject, word: str) -> None:
    said = data.draw(surrounded(word))
    assert yes_or_no(said) == word.lower()


@given(data=st.data(), word=st.sampled_from(["oui", "ja", "sí", "да", "是", "はい", "네", "evet", "có", "ใช่"]))
def test_yes_in_other_languages(data: st.DataObject, word: str) -> None:
    said = data.draw(surrounded(word))
    assert yes_or_no(said) == "yes"


LONG = [
    "<think>",
    "</answer>",
    "\\boxed{",
    "{",
    "<|begin_of_box|>",
    "Question: ",
    "USER: ",
    "A or B? ",
    "1 000 ",
    "\\frac{1}{",
    "√",
    "((1+",
    "是",
    "答案是",
    "<          ",
    "½",
    "5!",
    "7x",
    "(yes/",
    "Is it 3 or 4? ",
    "x-",
    "_a",
    "two ",
]


@pytest.mark.parametrize("piece", LONG, ids=repr)
def test_time_grows_with_the_length_alone(piece: str) -> None:
    """Ten times the length may take ten times as long, with room for noise, not a hundred times."""
    for read in (lambda s: choose(s, COLOURS), yes_or_no, number, open_answer, answer_part):
        taken = []
        for length in (20_000, 200_000):
            text = (piece * (length // len(piece) + 1))[:length]
            start = time.process_time()
            read(text)
            taken.append(time.process_time() - start)
        assert taken[1] < 30 * taken[0] + 1.0
