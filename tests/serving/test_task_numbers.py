"""The number that an answer gives: a table of hard answers."""

from __future__ import annotations

import pytest
from lostattn.serving.tasks.numerals import number, number_list

GIVES = [
    ("5", "5"), ("5.", "5"), (" 5 \n", "5"), ("**5**", "5"), ("(5)", "5"), ("\\boxed{5}", "5"), ("$5$", "5"), ("５", "5"),
    ("٥", "5"), ("+5", "5"), ("05", "5"),
    ("-5", "-5"), ("−5", "-5"), ("–5", "-5"), ("－５", "-5"), ("minus 5", "-5"), ("negative five", "-5"),
    ("The answer is -5.", "-5"), ("x = -5", "-5"),
    ("5.0", "5"), ("5.25", "5.25"), (".5", "0.5"), ("0.5", "0.5"), ("-.5", "-0.5"), ("１．５", "1.5"), ("1,234", "1234"),
    ("1,234,567.5", "1234567.5"),
    ("5 cm", "5"), ("5cm", "5"), ("5 apples", "5"), ("90°", "90"), ("90 degrees", "90"), ("$1.45", "1.45"),
    ("\\$1.45", "1.45"), ("€5", "5"), ("£ 5", "5"),
    ("5 dollars", "5"), ("45%", "45%"), ("45 %", "45%"), ("45 percent", "45%"), ("12.5\\%", "12.5%"), ("3/4", "0.75"),
    ("3 / 4", "0.75"), ("\\frac{3}{4}", "0.75"),
    ("$\\dfrac{3}{4}$", "0.75"), ("-\\frac{1}{2}", "-0.5"), ("½", "0.5"), ("2½", "2.5"), ("2 1/2", "2.5"),
    ("-3/4", "-0.75"), ("1.2e3", "1200"), ("1E-2", "0.01"),
    ("1.2 x 10^3", "1200"), ("1.2 × 10^{3}", "1200"), ("1.2×10³", "1200"), ("$1.2 \\times 10^{3}$", "1200"),
    ("10^3", "1000"), ("5 * 10^-2", "0.05"),
    ("five", "5"), ("Five.", "5"), ("twenty-one", "21"), ("one hundred and five", "105"), ("There are five.", "5"),
    ("There is one car", "1"), ("zero", "0"),
    ("The answer is 7", "7"), ("The answer is: 7.", "7"), ("Answer: 7", "7"), ("Answer: **7** cm", "7"), ("Answer:7", "7"),
    ("There are 7 balls in total", "7"),
    ("3 + 4 = 7", "7"), ("There are 3 red and 4 blue balls, so 7 in total.", "7"),
    ("3 red, 4 blue. Therefore, the answer is 7.", "7"), ("x = 3, then y = 7", "7"),
    ("The answer is 7 because 3 + 4 = 7", "7"), ("First 3. Then 4.\nFinal answer: 7", "7"),
    ("Step 1: 3\nStep 2: 4\n\n7", "7"), ("It went from 3 to 4. It is 7.", "7"),
    ("<think>3 or 4?</think>7", "7"), ("<think>3 4</think><answer>7</answer>", "7"), ("The sum is $3+4=\\boxed{7}$", "7"),
    ("about 7", "7"), ("≈7", "7"), ("7 (seven)", "7"),
    ("The total is 3 + 4 = 7.", "7"), ("The value is approximately 3.14.", "3.14"),
    ("In 2007 it was 3. The answer is 2008.", "2008"), ("1.", "1"), ("age: 7 years", "7"),
    ("[7]", "7"), ("7 > 5, so the answer is 7", "7"), ("The gap is 7 years", "7"), ("the result is 1,000", "1000"),
    ("12 cm^2", "12"), ("12 m²", "12"), ("12 cm2", "12"), ("8 = 5 + 3", "8"), ("Answer: 8 = 5 + 3", "8"),
    ("3 million", "3000000"),
    ("The percentage in 2019 is 35%.", "35%"), ("x=12 and y=13, so x+y=25", "25"), ("\\boxed{12\\text{ cm}}", "12"),
    ("-3.5°C", "-3.5"),
    ("The total number of apples is 12, with 3 rows of 4.", "12"), ("$\\angle A = 30^\\circ$", "30"), ("2^10", "1024"),
    ("1st", "1"), ("12 - because 3 rows of 4 are 12", "12"), ("12, because there are 3 rows of 4", "12"),
    ("12 cm, since 5 and 7 cm are its parts", "12"), ("12\n\nExplanation: 3 rows of 4", "12"), ("4\nReason: 3 is 5", "4"),
    ("12\nThere are 3 rows and 4 columns.", "12"), ("5 because 3 + 4 = 7. So the answer is 7", "7"),
    ("3 rows of 4 apples: 12", "12"), ("3.5 ± 0.1", "3.5"), ("3.5 +/- 0.1 cm", "3.5"), ("one quarter", "0.25"),
    ("three and a half", "3.5"), ("minus one half", "-0.5"), ("In 2010 the height: 5 m", "5"), ("12\r\n", "12"),
]  # fmt: skip

NONE = [
    "", " ", "?", "I don't know", "None", "many", "A few", "3 or 4", "The answer is 3 or 4", "3 and 4", "between 3 and 4",
    "3, 4", "B", "x", "3 red and 4 blue", "<think>7",
    "I cannot determine it.", "1/0", "3-4", "one or two", "Sorry.", "v1 and v2", "3 4", "7:30", "5 out of 10",
    "The answer is 3 + 4", "3,4", "1e400", "4 or 5 because 3", "between 3 and 5, since 4", "Bars: 4, lines: 5", "12\n+5\n17 - 2",
    "3,5", "5 apples, 3 pears", "10, but then 2 more", "2010: 5, 2011: 6", "The ratio 3:4", "Height: 5-6 m",
]  # fmt: skip

LISTS = [
    ("[1, 2]", (1, 2)), ("[1,2]", (1, 2)), ("(1, 2)", (1, 2)), ("The answer is [1.5, 2].", (1.5, 2)),
    ("[0, 1] or rather [2007, 2008]", (2007, 2008)),
    ("The maximum was between 2007 and 2008.", (2007, 2008)), ("Answer: 2007, 2008", (2007, 2008)),
    ("I count 3, so the answer is 2007 and 2008", (2007, 2008)),
    ("[-1, 2]", (-1, 2)), ("\\boxed{[1, 2]}", (1, 2)), ("[１, ２]", (1, 2)), ("", None), ("nothing", None),
    ("[1, 2] (see above)", (1, 2)), ("<answer>[1, 2]</answer>", (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "value"), GIVES, ids=repr)
def test_numbers(said: str, value: str) -> None:
    assert number(said) == value


@pytest.mark.parametrize("said", NONE, ids=repr)
def test_no_number(said: str) -> None:
    assert number(said) is None


@pytest.mark.parametrize(("said", "values"), LISTS, ids=repr)
def test_lists(said: str, values: tuple[float, ...] | None) -> None:
    assert number_list(said) == values
