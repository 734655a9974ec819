"""Items: the exact prompts, where pictures stand, groups, what a wrong row is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.tasks.discover import all_tasks, get_task
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.task import REASONING_TRIGGER, Item
from PIL import Image

ABCD = {"A": "cat", "B": "dog", "C": "cow", "D": "pig"}
ROWS: dict[str, dict[str, Any]] = {
    "pope": {
        "question_id": 7,
        "question": "Is there a dog in the image?",
        "answer": "Yes",
        "category": "random",
        "image_source": "COCO_1",
    },
    "realworldqa": {
        "question": "How many?\nPlease answer directly with a single word or number.",
        "answer": "3",
        "image_path": "0.webp",
    },
    "3dsrbench": {
        "qid": "VIN6MS3J-flip-1",
        "question": "Which?",
        "A": "left",
        "B": "right",
        "C": "nan",
        "D": float("nan"),
        "answer": "B",
        "category": "location_above",
    },
    "mmmu": {
        "id": "validation_Art_Theory_3",
        "question": "See <image 1> and <image 2>.",
        "options": "['<image 1>', \"it's\"]",
        "answer": "A",
        "question_type": "multiple-choice",
        "image_1": b"one",
        "image_2": b"two",
        "image_3": None,
    },
    "vmcbench": {"index": 5, "question": "What?", **ABCD, "answer": "D", "category": "OCRVQA"},
    "hallusionbench": {
        "category": "VS",
        "subcategory": "map",
        "visual_input": "1",
        "set_id": "0",
        "figure_id": "1",
        "question_id": "2",
        "question": "Is it so?",
        "gt_answer": "1",
        "filename": "a.png",
    },
    "mathvista": {
        "pid": "9",
        "question": "Which?",
        "query": "Hint: ...\nQuestion: Which?\nChoices:\n(A) 3/11\n(B) 8/11",
        "choices": ["3/11", "8/11"],
        "answer": "8/11",
        "question_type": "multi_choice",
        "answer_type": "text",
        "metadata": {"task": "geometry", "category": "math", "skills": ["algebra", "logic"]},
    },
    "videomme": {
        "videoID": "abc",
        "question": "What?",
        "options": ["A. cat", "B. dog"],
        "answer": "B",
        "duration": "short",
    },
    "questions": {"question": "What does the sign say?", "answer": "Stop", "options": ["Go", "Stop"], "kind": "sign"},
    "digits": {
        "question": "Which of these digits is in the image? A. 3 B. 5 C. 7 D. 9",
        "answer": "C",
        "kind": "choice",
    },
}

PROMPTS = {
    "pope": "<image>Is there a dog in the image?\nAnswer the question using a single word or phrase.",
    "realworldqa": "<image>How many?\nPlease answer directly with a single word or number.",
    "3dsrbench": "<image>Question: Which?\nOptions:\nA. left\nB. right\n"
    "Please select the correct answer from the options above. \n",
    "mmmu": "See <image> and <image>.\nA. <image>\nB. it's\n\nAnswer with the option's letter from the given choices directly.",
    "vmcbench": "<image>Question: What?\nOptions:\nA. cat\nB. dog\nC. cow\nD. pig\n"
    "Answer with the option's letter from the given choices directly.\n",
    "hallusionbench": "<image>Is it so?",
    "mathvista": "<image>Hint: ...\nQuestion: Which?\nChoices:\n(A) 3/11\n(B) 8/11",
    "videomme": "<video>Select the best answer to the following multiple-choice question based on the video. Respond with only "
    "the letter (A, B, C, or D) of the correct option.\nWhat?\nA. cat\nB. dog\nThe best answer is:",
    "questions": "<image>What does the sign say?\nA. Go\nB. Stop\n"
    "Answer with the option's letter from the given choices directly.",
    "digits": "<image>Which of these digits is in the image? A. 3 B. 5 C. 7 D. 9",
}


def item(name: str, **changed: Any) -> Item:
    return get_task(name).item(Row(4, {**ROWS[name], **changed}, Path("folder"), "read the docs"))


def test_every_task_is_tested() -> None:
    assert set(all_tasks()) == set(ROWS) == set(PROMPTS)


@pytest.mark.parametrize("name", ROWS)
def test_prompts(name: str) -> None:
    assert item(name).text == PROMPTS[name] and item(name).row == 4 and item(name).folder == Path("folder")


@pytest.mark.parametrize("name", ROWS)
def test_reasoning_appends_the_trigger(name: str) -> None:
    asked = get_task(name).item(Row(1, ROWS[name]), reasoning=True)
    assert asked.text == f"{PROMPTS[name].rstrip()}\n{REASONING_TRIGGER}"
    assert "<think> </think>" in REASONING_TRIGGER and REASONING_TRIGGER.endswith("MUST BE in <answer> </answer> tags.")
    task = get_task(name)
    assert (
        task.prompt_version(reasoning=True) == f"{name}-default+reasoning/1"
        and task.prompt_version() == f"{name}-default/1"
    )


def test_the_papers_vmcbench_prompt() -> None:
    task = get_task("vmcbench")
    asked = task.item(Row(1, ROWS["vmcbench"]), "authors").text
    assert asked.endswith("D. pig\n Answer ONLY option's letter from the given choices.") and "directly" not in asked
    with pytest.raises(LostattnError, match="no prompt 'x': choose one of default, authors"):
        task.item(Row(1, ROWS["vmcbench"]), "x")


def test_what_items_know() -> None:
    assert item("pope").cluster == "COCO_1" and item("pope").gold == "yes" and item("pope").id == "random/7"
    assert (
        item("3dsrbench").details == {"base": "VIN6MS3J", "flip": "-flip", "turn": "-1"}
        and item("3dsrbench").cluster == "VIN6MS3J"
    )
    assert item("3dsrbench").options == {"A": "left", "B": "right"} and item("3dsrbench").groups["group"] == "location"
    several = item("mmmu")
    assert (
        several.prompt[1] == 0
        and several.prompt[3] == 1
        and several.prompt[5] == 0
        and several.images == (b"one", b"two")
    )
    assert dict(several.groups) == {"discipline": "Art and Design", "subject": "Art_Theory", "type": "multiple-choice"}
    assert item("mathvista").details["skills"] == ("algebra", "logic") and item("mathvista").gold == "8/11"
    assert (
        item("vmcbench").id == "5"
        and item("hallusionbench").id == "VS_map_0_1_2"
        and item("realworldqa").cluster == "0.webp"
    )


def test_mmmu_without_marks_has_its_pictures_in_front() -> None:
    assert item("mmmu", question="See.", options="['a', 'b']").prompt[:2] == (0, 1)
    opened = item("mmmu", question_type="open", options="[]", answer="['5', 'five']")
    assert (
        opened.gold == ("5", "five")
        and opened.text.endswith("\n\nAnswer the question using a single word or phrase.")
        and not opened.options
    )


def test_hallusionbench_without_a_picture() -> None:
    bare = item("hallusionbench", visual_input="0")
    assert bare.text == "Is it so?" and bare.images == ()


def test_mathvista_without_a_query() -> None:
    asked = item("mathvista", query=None, unit="cm").text
    assert asked.startswith("<image>Hint: Please answer the question and provide the correct option letter")
    assert asked.endswith("Question: Which? (Unit: cm)\nChoices:\n(A) 3/11\n(B) 8/11")


def test_pictures_open(tmp_path: Path) -> None:
    Image.new("RGB", (2, 3), "red").save(tmp_path / "a.png")
    found = get_task("pope").item(Row(1, {**ROWS["pope"], "image": "a.png"}, tmp_path)).pictures()
    assert found[0].size == (2, 3)
    with pytest.raises(LostattnError, match="row 6: .*does not exist"):
        get_task("pope").item(Row(6, {**ROWS["pope"], "image": "b.png"}, tmp_path)).pictures()


def test_clusters_by_the_picture_itself() -> None:
    same = [
        item("vmcbench", image=i, index=n).cluster
        for n, i in enumerate((b"x", {"bytes": b"x"}, b"y", {"path": "z.png"}, None))
    ]
    assert same[0] == same[1] != same[2] and same[3:] == ["z.png", "4"]


@pytest.mark.parametrize(
    ("name", "changed", "says"),
    [
        ("pope", {"answer": None}, "row 4 has no field 'answer': read the docs"),
        ("pope", {"answer": "maybe"}, "'maybe' in field 'answer', .* one of yes, no"),
        ("pope", {"category": None}, "no field 'category'"),
        ("pope", {"question": None}, "no field 'question'"),
        ("pope", {"question": ["x"]}, "no text in field 'question'"),
        ("vmcbench", {"C": None}, "no field 'C'"),
        ("vmcbench", {"answer": "E"}, "'E' in field 'answer'"),
        ("vmcbench", {"category": "nan"}, "no field 'category'"),
        ("3dsrbench", {"answer": "C"}, "one of a, b"),
        ("3dsrbench", {"qid": None}, "no field 'qid'"),
        ("3dsrbench", {"A": None, "B": "nan"}, "has no options"),
        ("mmmu", {"options": "['a'"}, "no list in field 'options'"),
        ("mmmu", {"options": "['a']"}, "fewer than two options"),
        ("mmmu", {"options": 5}, "no list"),
        ("mmmu", {"question_type": "essay"}, "one of multiple-choice, open"),
        ("mmmu", {"question_type": "open", "answer": " "}, "empty field 'answer'"),
        ("hallusionbench", {"gt_answer": "2"}, "'2' in field 'gt_answer'"),
        ("hallusionbench", {"figure_id": None}, "no field 'figure_id'"),
        ("mathvista", {"answer": "5/11"}, "none of its choices"),
        ("mathvista", {"answer_type": "real"}, "one of text, integer"),
        ("mathvista", {"question_type": "free_form", "answer_type": "float"}, "field 'precision'"),
        ("realworldqa", {"answer": "B"}, "no letter of its options"),
        ("digits", {"answer": "E"}, "'E' in field 'answer'"),
        ("digits", {"options": "abc"}, "no list in field 'options'"),
    ],
    ids=str,
)
def test_wrong_rows_are_named(name: str, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(LostattnError, match=says) as error:
        item(name, **changed)
    assert "row 4" in str(error.value) and "\n" not in str(error.value)
