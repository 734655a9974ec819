"""Yes or no: a table of hard answers, read as a careful human would."""

from __future__ import annotations

import pytest
from lostattn.serving.tasks.yesno import yes_or_no

YES = [
    "yes", "Yes", "YES", "Yes.", " yes \n", "**Yes**", "(yes)", "[Yes]", '"Yes"', "“Yes”", "'yes'", "Yes!", "`yes`",
    "ｙｅｓ", "Ｙｅｓ．", "𝐘𝐞𝐬",
    "Yes, there is a dog.", "yes it is", "Yes - there is one", "Yes – a dog", "Yes\nThe dog is on the left.",
    "Yes, there is no doubt.",
    "The answer is yes.", "Answer: yes", "ANSWER: YES", "Answer：Yes", "**Answer:** Yes", "The answer is **yes**",
    "The correct answer is 'Yes'.",
    "Final answer: yes", "So the answer is yes", "My answer to the question is yes", "Well, yes.", "I would say yes",
    "I think yes.", "Probably yes",
    "No doubt, yes.", "Yes, no problem.", "Yes, and there is no cat.", "Yes; the left one is not larger, it is equal.",
    "True", "True.", "Correct.",
    "Yeah", "yep", "Indeed.", "Of course.", "Absolutely!", "Certainly, it is.", "It is.", "They do.",
    "The statement is true.", "Yes, I am sure.",
    "The answer is not no, but yes", "not no", "\\boxed{yes}", "\\boxed{\\text{Yes}}", "<think>no?</think>yes",
    "<think>No.</think><answer>Yes</answer>",
    "<answer>Yes, there is no other.</answer>", "First I thought no. The answer is yes.", "No, wait, yes",
    "No... actually, yes.", "Yes, yes!", "\u200byes",
    "It cannot be seen well, but yes.", "Yes, although I am not sure.", "That is correct.", "I think so",
    "Yes, of course not hidden",
    "Yes — there is", '{"answer": "yes"}', "Yes</s>", "yes<|im_end|>", "Answer - yes", "<answer>yes</answer> no",
    "yes (100%)", "ja", "yes or no? yes", "I see no reason to doubt: yes, there is a dog.", "Yes\r\n",
]  # fmt: skip

NO = [
    "no", "No", "NO.", "No!", "(no)", "**No**", "no\n", "ｎｏ", "No, there isn't.", "No there is not", "There is no dog.",
    "there is no cat in it",
    "no dog", "No dogs are visible", "The answer is no.", "Answer: no", "Answer: **No**", "not yes",
    "The answer is not yes", "Not a yes.", "False",
    "Incorrect.", "Nope", "Not at all.", "Absolutely not.", "Of course not", "Definitely not!", "It is not.", "It isn't.",
    "They do not.", "No, it is not true.",
    "No. That is wrong.", "No, yes would be wrong", "The statement is false.", "That is not correct.", "I don't think so.",
    "\\boxed{No}",
    "<think>yes</think><answer>no</answer>", "Yes... wait, no.", "No, I cannot see one.", "No, not sure about the rest.",
    "No – none", "I would say no.",
    "The image shows a cat, so no.", "Is there a dog? No.",
    "I'm sorry, no.", "no—not there", "Based on the image, there is no dog, so the answer is no.",
    "The correct answer is 'no'",
]  # fmt: skip

NEITHER = [
    "", " ", "\n", ".", "?", "yes and no", "Yes and no.", "yes or no", "Yes/No", "no, yes", "yes, no", "Yes. No.", "no yes",
    "Maybe", "maybe yes, maybe no",
    "Perhaps.", "I don't know", "I'm not sure.", "I am unsure", "It is unclear.", "No idea.", "no idea",
    "I cannot determine that from the image.",
    "Sorry, I can't help with that.", "I'm unable to view images", "As an AI language model, I am unable to answer.",
    "It depends.", "unknown", "N/A",
    "yesterday", "Norway", "know", "nobody", "yes-man", "eyes", "nose", "Noise", "A dog.", "42", "The circle is larger.",
    "<think>yes", "<answer></answer>",
    "<think>yes</think>", "There is no way to tell.", "No image was provided.", "Uncertain", "The answer is yes or no",
    "🙂",
    "Yes\n\nNo", "Yes, but no", "It is not possible to tell", "Y", "0", "1", "Sorry", "nothing",
]  # fmt: skip

DOG = [
    ("There is a dog in the image.", "yes"), ("I see a dog on the left", "yes"), ("The image shows a dog.", "yes"),
    ("A dog is visible.", "yes"), ("A dog", "yes"),
    ("dog", None), ("There are two dogs.", "yes"), ("There isn't a dog in the picture.", "no"),
    ("I do not see a dog.", "no"), ("A dog is not visible", "no"),
    ("The image does not contain a dog.", "no"), ("I cannot see a dog.", "no"), ("I can't see any dog in the image", "no"),
    ("No dog.", "no"), ("none", None),
    ("I cannot see the image, so I can't tell if a dog is there.", None), ("I can't tell whether there is a dog.", None),
    ("There is a cat.", None),
    ("The image shows a hotdog.", None), ("It is not visible.", "no"), ("Without a dog, the picture would be empty", "no"),
    ("Yes, there is a dog", "yes"),
    ("I see no dog, yes.", None), ("I see no reason to doubt: yes, there is a dog.", "yes"),
    ("There is a cat, but no dog.", "no"), ("The dog is absent.", "no"),
]  # fmt: skip


@pytest.mark.parametrize("said", YES, ids=repr)
def test_yes(said: str) -> None:
    assert yes_or_no(said) == "yes"


@pytest.mark.parametrize("said", NO, ids=repr)
def test_no(said: str) -> None:
    assert yes_or_no(said) == "no"


@pytest.mark.parametrize("said", NEITHER, ids=repr)
def test_neither(said: str) -> None:
    assert yes_or_no(said) is None


@pytest.mark.parametrize(("said", "meant"), DOG, ids=repr)
def test_is_there_a_dog(said: str, meant: str | None) -> None:
    assert yes_or_no(said, "dog") == meant


def test_sentences_need_the_object() -> None:
    assert yes_or_no("There is a dog in the image.") is None
    assert yes_or_no("There is a traffic light.", "traffic light") == "yes"
