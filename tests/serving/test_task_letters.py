"""Which option an answer chooses: a table of hard answers, read as a careful human would."""

from __future__ import annotations

import pytest
from lostattn.serving.tasks.letters import choose

ANIMALS = {"A": "cat", "B": "dog", "C": "black dog", "D": "horse"}
COLOURS = {"A": "red", "B": "dark red", "C": "blue", "D": "none of the above"}
NUMBERS = {"A": "3", "B": "30", "C": "1,200", "D": "3.5 cm"}
LENGTHS = {"A": "5 cm", "B": "50%", "C": "$12", "D": "-5"}
UNSURE = {"A": "left", "B": "right", "C": "Cannot be determined", "D": "All of the above"}
FRACTIONS = {"A": "3/11", "B": "8/11", "C": "1/2", "D": "$\\frac{3}{4}$"}
YES_NO = {"A": "Yes", "B": "No"}
MARKS = {"A": "B", "B": "A", "C": "<image 1>", "D": "<image 2>"}
MANY = {letter: f"thing {n}" for n, letter in enumerate("ABCDEFGHI", 10)}
VITAMINS = {"A": "vitamin A", "B": "vitamin C", "C": "iron", "D": "zinc"}

LETTER = [
    ("B", "B"), ("b", "B"), ("B.", "B"), ("(B)", "B"), ("(b)", "B"), ("[B]", "B"), ("{B}", "B"), ("B)", "B"), ("B:", "B"),
    ("**B**", "B"), ("*B*", "B"), ("`B`", "B"), ('"B"', "B"), ("'B'.", "B"), (" \n B \n", "B"), ("**(B)**", "B"),
    ("__B__", "B"),
    ("**B.**", "B"), ("# B", "B"), ("> B", "B"), ("- B", "B"), ("B!", "B"), ("\u200bB\ufeff", "B"), ("$B$", "B"),
    ("a", "A"), ("A", "A"),
    ("Ｂ", "B"), ("（Ｂ）", "B"), ("Ⓑ", "B"), ("𝐁", "B"), ("В", "B"), ("Β", "B"), ("“B”", "B"), ("【B】", "B"),
    ("B。", "B"),
    ("B. dog", "B"), ("B) dog", "B"), ("(B) dog", "B"), ("B: dog", "B"), ("B - dog", "B"), ("B – dog", "B"), ("B dog", "B"),
    ("b. dog", "B"),
    ("b) dog", "B"), ("**B. dog**", "B"), ("B, dog", "B"), ("B\ndog", "B"), ("B. The animal is a dog, not a cat.", "B"),
    ("option B", "B"), ("Option (B)", "B"), ("choice b", "B"), ("answer: b", "B"), ("Answer: B", "B"), ("ANSWER: B", "B"),
    ("Answer B", "B"),
    ("Answer:B", "B"), ("Answer：Ｂ", "B"), ("Answer - B", "B"), ("Answer:\nB", "B"), ("**Answer:** B", "B"),
    ("**Answer: B. dog**", "B"),
]  # fmt: skip

SENTENCE = [
    ("答案是B", "B"), ("正确答案：B", "B"), ("选B", "B"), ("B</answer>", "B"), ("It is a dog. B</answer> or A", "B"),
    ("B\r\n", "B"), ("Answer: B\r\nReason: A is not right\r\n", "B"),
    ("The answer is B because A is a cat.", "B"), ("The answer is B because A ...", "B"),
    ("The correct answer is (B).", "B"),
    ("The correct option is: B", "B"), ("the best answer is b", "B"), ("The answer is option B.", "B"),
    ("My answer is B", "B"),
    ("The answer is **B**.", "B"), ("The answer is \"B\".", "B"), ("The answer would be B", "B"),
    ("The answer should be (b).", "B"),
    ("I choose B.", "B"), ("I would go with (B)", "B"), ("I'd pick option B", "B"), ("B is correct.", "B"),
    ("B is the correct answer.", "B"),
    ("Option B is correct", "B"), ("B. dog is the correct answer", "B"), ("It is B.", "B"), ("It's B", "B"),
    ("I think B", "B"),
    ("I think it's B.", "B"), ("I think A", "A"), ("A is correct", "A"), ("A because it purrs", "A"),
    ("A, because it purrs", "A"),
    ("Therefore, B.", "B"), ("So the answer is B", "B"), ("Hence (B)", "B"), ("The answer is A.", "A"),
    ("The answer is a.", "A"),
    ("The answer is not A, it is B.", "B"), ("Not A but B", "B"), ("It can't be A, so B.", "B"),
    ("A is wrong. B is right.", "B"),
    ("The correct answer to the question is B", "B"), ("Among the choices, the answer is B.", "B"),
    ("The answer is B, not A.", "B"),
    ("Based on the image, the correct answer is:\n\nB. dog", "B"), ("The answer is B. A is a cat and C is not shown.", "B"),
    ("B\n\nExplanation: the picture shows an animal; option A would be smaller.", "B"), ("Looking at it, (B).", "B"),
    ("The letter of the correct option is B.", "B"), ("Final answer: B", "B"), ("### Final Answer\nB", "B"),
    ("Answer: (B) dog", "B"),
]  # fmt: skip

MORE = [
    ("Correct answer: B", "B"), ("The correct choice is B) dog.", "B"), ("Ans: B", "B"), ("ans b", "B"),
    ("B is the best choice", "B"),
    ("B would be the answer", "B"), ("I believe it is B", "B"), ("Based on the image, B.", "B"),
    ("Selected option: B", "B"),
    ("The answer is $B$", "B"), ("The answer is \\(B\\).", "B"), ("**Final Answer: (B)**", "B"), ("Answer: <B>", "B"),
    ("[[B]]", "B"),
    ('{"answer": "B"}', "B"), ("Answer -> B", "B"), ("B</s>", "B"), ("B<|im_end|>", "B"), ("ASSISTANT: B", "B"),
    ("B?", "B"),
    ("It's not A. It's not C or D. So B.", "B"), ("A is incorrect, C is incorrect, D is incorrect; B is right", "B"),
    ("We can rule out A, C and D, so B is the answer.", "B"), ("Between A and B, I choose B", "B"),
    ("A. cat is wrong, B. dog is right", "B"),
    ("Either A or B, but B fits better, so the answer is B", "B"), ("The answer is A because B is wrong", "A"),
    ("the answer is c", "C"),
    ("The answer is A cat", "A"), ("The answer is A dog", "B"), ("dog (B)", "B"), ("Cat (A)", "A"), ("D obviously", "D"),
    ("maybe B", "B"),
    ("I'm not certain, but the answer is B", "B"), ("The answer cannot be determined, but if forced I'd say B", "B"),
    ("B, B", "B"),
    ("The answer is A. Wait, the answer is B", "B"), ("This corresponds to B", "B"), ("the choice C, the black dog.", "C"),
    ("B\nB", "B"),
    ("Explanation: The dog is shown.\nAnswer: B\n\nConfidence: high", "B"),
    ("I would choose option B, because A is different.", "B"),
    ("The person holds A4 paper and a dog", "B"), ("It's hard to tell, but I'd go with B.", "B"), ("1. B", "B"),
    ("that makes it B.", "B"),
]  # fmt: skip

THOUGHT = [
    ("A: it has no stripes, so no.\nB: barks, fits.\nC: not black.\nAnswer: B", "B"),
    ("Let's think. Option A is a cat, but it barks. Option B is a dog. Thus the answer is B.", "B"),
    ("First I thought the answer is A. But looking again, the answer is B.", "B"),
    ("The animal barks.\nIt is brown.\n\nB", "B"), ("The animal barks.\n(B)", "B"), ("It barks and wags. B.", "B"),
    ("Step 1: look.\nStep 2: compare A and C.\nStep 3: conclude.\n\\boxed{B}", "B"), ("$\\boxed{\\text{B}}$", "B"),
    ("\\boxed{(B)}", "B"),
    ("\\boxed{A} no, wait: \\boxed{B}", "B"), ("\\boxed{\\textbf{B. dog}}", "B"), ("\\boxed{dog}", "B"), ("\\boxed{B", "B"),
    ("<think>A? no. C?</think><answer>B</answer>", "B"), ("<think>A</think>\nB", "B"), ("<answer> (b) dog </answer>", "B"),
    ("<think>maybe <answer>A</answer></think><answer>B</answer>", "B"), ("<ANSWER>B</ANSWER>", "B"), ("<answer>B", "B"),
    ("<answer>\\boxed{B}</answer>", "B"), ("<answer></answer><answer>B</answer>", "B"),
    ("<think>It is A<answer>B</answer>", "B"),
    ("<answer>The answer is B because A is no dog</answer>", "B"), ("</think>B", "B"), ("<think>A or B, A seems", None),
    ("<think>A</think>", None),
    ("<answer></answer>", None), ("<answer>A or B</answer>", None), ("<think>B</think><answer> </answer>", None),
]  # fmt: skip

NOTHING = [
    "A vs B", "A (or B)", "A versus B",
    "", " ", "\n\t", ".", "...", "()", "E", "(E)", "The answer is E.", "Z.", "A or B", "A and B", "A, B", "A/B", "A & B",
    "Both A and B", "AB",
    "ABCD", "A B C D", "A. cat B. dog C. black dog D. horse", "A. cat\nB. dog\nC. black dog\nD. horse", "A\nB",
    "The answer is A or B.",
    "Answer: A and B", "Answer: A, B", "Answer: A/B", "(A) or (B)", "either (A) or (C)", "I don't know.", "I'm not sure.",
    "Unknown",
    "I cannot determine the answer from the image.", "Sorry, I can't help with images of people.",
    "As an AI, I am unable to see images.",
    "I am sorry, but I can't tell whether it is A.", "None of the above", "None of them.", "The answer is none of these.",
    "N/A", "None",
    "It is a nice picture.", "A bird.", "A picture of a bird", "I see an animal", "A large animal is shown", "Bird",
    "Apple", "Because", "Definitely",
    "a big one", "Can do", "D'accord", "B-52", "B2B", "A+", "C++", "X-ray of class A-level B.C. art", "cat and dog",
    "a cat or a dog", "not a cat",
    "The options are: A. cat, B. dog", "What is it? A cat or a horse?", "The correct answer is not A.", "Not B.", "5", "1",
    "yes", "?", "🐕", "答案",
    "A and C are correct.", "A and B are both correct", "Both (A) and (B) are right", "Neither A nor B", "A;B",
    "A or maybe B", "A B",
    "The answer could be A or C", "The answer isn't B", "B is wrong", "Answer:", "Answer: AB", "The vitamin D level",
    "I think A is wrong",
]  # fmt: skip

TEXT = [
    (ANIMALS, "dog", "B"), (ANIMALS, "Dog.", "B"), (ANIMALS, "a dog", "B"), (ANIMALS, "A dog", "B"),
    (ANIMALS, "The dog!", "B"), (ANIMALS, "DOG", "B"),
    (ANIMALS, "black dog", "C"), (ANIMALS, "A black dog", "C"), (ANIMALS, "It is a black dog.", "C"),
    (ANIMALS, "It is a dog.", "B"), (ANIMALS, "A cat", "A"),
    (ANIMALS, "The animal in the picture is a horse", "D"), (ANIMALS, "It is not a cat, it is a dog", "B"),
    (ANIMALS, "not a cat but a horse", "D"),
    (ANIMALS, "The answer is dog.", "B"), (ANIMALS, "The answer is a cat.", "A"), (ANIMALS, "Answer: horse", "D"),
    (ANIMALS, "hotdog", None),
    (ANIMALS, "a dog and a horse", None), (ANIMALS, "I'm not sure, but I think it's a dog.", "B"),
    (ANIMALS, "dog-like", None), (ANIMALS, "*dog*", "B"),
    (COLOURS, "red", "A"), (COLOURS, "dark red", "B"), (COLOURS, "It is dark red.", "B"),
    (COLOURS, "It is red rather than blue", "A"), (COLOURS, "infrared", None),
    (COLOURS, "None of the above", "D"), (COLOURS, "The answer is none of the above.", "D"), (COLOURS, "Dark  Red", "B"),
    (COLOURS, "red or blue", None),
    (NUMBERS, "3", "A"), (NUMBERS, "three", "A"), (NUMBERS, "Three.", "A"), (NUMBERS, "There are 3 cars.", "A"),
    (NUMBERS, "There are 30.", "B"),
    (NUMBERS, "thirty", "B"), (NUMBERS, "1200", "C"), (NUMBERS, "1,200", "C"), (NUMBERS, "３", "A"), (NUMBERS, "٣", "A"),
    (NUMBERS, "3.5 cm", "D"),
    (NUMBERS, "3.5cm", "D"), (NUMBERS, "It is 3.5 cm long", "D"), (NUMBERS, "33", None), (NUMBERS, "3.7", None),
    (NUMBERS, "13", None), (NUMBERS, "3 or 30", None),
    (NUMBERS, "**3**", "A"), (NUMBERS, "The count is 3", "A"), (NUMBERS, "-3", None), (NUMBERS, "3/4", None),
    (LENGTHS, "5 cm", "A"), (LENGTHS, "5cm.", "A"), (LENGTHS, "50 %", "B"), (LENGTHS, "50%", "B"), (LENGTHS, "$12", "C"),
    (LENGTHS, "−5", "D"), (LENGTHS, "-5", "D"),
    (LENGTHS, "The result is –5", "D"), (LENGTHS, "5", None), (LENGTHS, "50", None),
    (UNSURE, "Cannot be determined", "C"), (UNSURE, "It cannot be determined.", "C"), (UNSURE, "All of the above", "D"),
    (UNSURE, "right", "B"),
    (UNSURE, "on the left", "A"), (UNSURE, "left and right", None), (UNSURE, "I cannot tell.", None),
    (UNSURE, "The answer is that it cannot be determined.", "C"),
    (FRACTIONS, "8/11", "B"), (FRACTIONS, "8 / 11", "B"), (FRACTIONS, "(B) 8/11", "B"), (FRACTIONS, "\\frac{8}{11}", "B"),
    (FRACTIONS, "½", "C"),
    (FRACTIONS, "3/4", "D"), (FRACTIONS, "The fraction is $\\frac{3}{11}$.", "A"), (FRACTIONS, "11", None),
    (FRACTIONS, "18/11", None),
    (YES_NO, "Yes", "A"), (YES_NO, "no.", "B"), (YES_NO, "No, there is not", "B"), (YES_NO, "Yes, there is no doubt", "A"),
    (YES_NO, "yes and no", None),
    (YES_NO, "B", "B"), (YES_NO, "B. No", "B"), (YES_NO, "not yes", "B"),
    (MARKS, "B", "B"), (MARKS, "A", "A"), (MARKS, "The answer is B", "B"), (MARKS, "image 1", None), (MARKS, "(C)", "C"),
    (MANY, "I", "I"), (MANY, "I think the answer is H", "H"), (MANY, "I think so", None), (MANY, "(I)", "I"),
    (MANY, "J", None), (MANY, "I believe thing 11", "B"),
    (VITAMINS, "vitamin C", "B"), (VITAMINS, "It is vitamin C.", "B"), (VITAMINS, "Vitamin A", "A"), (VITAMINS, "C", "C"),
    (VITAMINS, "iron", "C"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "letter"), [*LETTER, *SENTENCE, *MORE, *THOUGHT], ids=repr)
def test_letters(said: str, letter: str | None) -> None:
    assert choose(said, ANIMALS) == letter


@pytest.mark.parametrize("said", NOTHING, ids=repr)
def test_no_answer(said: str) -> None:
    assert choose(said, ANIMALS) is None


@pytest.mark.parametrize(("options", "said", "letter"), TEXT, ids=lambda x: repr(x) if isinstance(x, str) else "")
def test_option_texts(options: dict[str, str], said: str, letter: str | None) -> None:
    assert choose(said, options) == letter


def test_every_letter_alike() -> None:
    """The rule knows no favourite: what it says of B it says of every letter."""
    shown = {letter: f"thing {n}" for n, letter in enumerate("ABCD", 10)}
    for letter, text in shown.items():
        for form in (
            "{}",
            "{}.",
            "({})",
            "{}) {t}",
            "Answer: {}",
            "The answer is {}.",
            "{}. {t}",
            "{} {t}",
            "\\boxed{{{}}}",
            "{} is correct",
            "It is {}.",
        ):
            assert choose(form.format(letter, t=text), shown) == letter, form


def test_absent_letters_are_no_options() -> None:
    two = {"A": "left", "B": "right"}
    assert choose("C", two) is None and choose("The answer is D", two) is None and choose("B", two) == "B"
