"""Metrics of every task on tables that were worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.score import score
from lostattn.serving.tasks.task import Item


def measured(name: str, rows: Sequence[dict[str, Any]], harness: str = "lostattn") -> dict[str, float]:
    task = get_task(name)
    answered: list[tuple[Item, str]] = [(task.item(Row(n, r)), r["response"]) for n, r in enumerate(rows, 1)]
    return dict(score(task, answered, harness).metrics)


def pope(gold: str, response: str, category: str = "random") -> dict[str, Any]:
    return {"question": "Is there a dog in the image?", "answer": gold, "category": category, "response": response}


def test_pope() -> None:
    rows = [
        pope("yes", "Yes."),
        pope("yes", "no"),
        pope("yes", "perhaps"),
        pope("no", "No, there is no dog"),
        pope("no", "yes"),
        pope("yes", "yes", "popular"),
        pope("no", "no", "popular,adversarial"),
    ]
    found = measured("pope", rows)
    # the last row counts twice: 8 decisions, right are rows 1, 4, 6, 7, 7; "yes" was said in rows 1, 5, 6; gold is yes in
    # rows 1, 2, 3, 6
    assert found["n"] == 7 and found["unparsed"] == 1
    assert found["accuracy"] == 5 / 8 and found["precision"] == 2 / 3 and found["recall"] == 2 / 4
    assert found["f1"] == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2)) and found["yes_ratio"] == 3 / 8
    assert found["random/accuracy"] == 2 / 5 and found["random/precision"] == 1 / 2 and found["random/recall"] == 1 / 3
    assert found["random/f1"] == pytest.approx(0.4) and found["random/yes_ratio"] == 2 / 5
    assert found["popular/accuracy"] == 1 and found["popular/f1"] == 1 and found["popular/yes_ratio"] == 1 / 2
    assert found["adversarial/accuracy"] == 1 and found["adversarial/f1"] == 0 and found["adversarial/precision"] == 0


def test_pope_where_nobody_says_yes() -> None:
    found = measured("pope", [pope("yes", "no"), pope("no", "no")])
    assert [found[k] for k in ("accuracy", "precision", "recall", "f1", "yes_ratio")] == [0.5, 0, 0, 0, 0]


def hallusion(place: str, gold: str, response: str) -> dict[str, Any]:
    keys = dict(zip(("category", "subcategory", "set_id", "figure_id", "question_id"), place.split("_"), strict=True))
    return {**keys, "question": "Is it so?", "gt_answer": gold, "visual_input": "1", "response": response}


def test_hallusionbench() -> None:
    rows = [
        hallusion("VD_ocr_0_0_0", "1", "Yes."),
        hallusion("VD_ocr_0_0_1", "0", "no"),  # figure all right
        hallusion("VD_ocr_0_1_0", "0", "Yes"),
        hallusion("VD_ocr_0_1_1", "1", "yes"),  # question 0 is wrong there
        hallusion("VS_ocr_0_0_0", "1", "I cannot tell."),
        hallusion("VS_ocr_0_1_0", "0", "No"),
    ]
    found = measured("hallusionbench", rows)
    assert found["n"] == 6 and found["unparsed"] == 1 and found["aAcc"] == 4 / 6
    assert found["fAcc"] == 2 / 4, "VD figure 0 and VS figure 1"
    assert found["qAcc"] == 1 / 3, "VD question 1; the VS one is another set of the same number"
    assert (found["VD/aAcc"], found["VD/fAcc"], found["VD/qAcc"]) == (3 / 4, 1 / 2, 1 / 2)
    assert (found["VS/aAcc"], found["VS/fAcc"], found["VS/qAcc"]) == (1 / 2, 1 / 2, 0)
    assert found["VD_ocr/accuracy"] == 3 / 4 and found["VS_ocr/accuracy"] == 1 / 2


def test_hallusionbench_without_a_judge_as_lmms_eval() -> None:
    rows = [hallusion("VD_ocr_0_0_0", "1", "eyes"), hallusion("VD_ocr_0_0_1", "0", "I cannot tell.")]
    assert measured("hallusionbench", rows, "lmms-eval")["aAcc"] == 1
    assert measured("hallusionbench", rows)["unparsed"] == 2


def spatial(qid: str, response: str, category: str = "height_higher") -> dict[str, Any]:
    return {
        "qid": qid,
        "question": "Which?",
        "A": "left",
        "B": "right",
        "C": "nan",
        "D": None,
        "answer": "A",
        "category": category,
        "response": response,
    }


def test_3dsrbench() -> None:
    right, wrong = "A", "B"
    rows = [
        spatial("AAAAAAAA", right),
        spatial("AAAAAAAA-1", right),
        spatial("AAAAAAAA-flip", right),
        spatial("AAAAAAAA-flip-1", wrong),
        spatial("BBBBBBBB", right, "location_above"),
        spatial("BBBBBBBB-1", right, "location_above"),
        spatial("BBBBBBBB-flip", right, "location_above"),
        spatial("BBBBBBBB-flip-1", right, "location_above"),
        spatial("CCCCCCCC", wrong, "multi_object_facing"),
        spatial("CCCCCCCC-1", right, "multi_object_facing"),
    ]
    found = measured("3dsrbench", rows)
    assert found["vanilla"] == 8 / 10
    assert found["flip"] == 4 / 6, "right pairs: A, B, B-1 and the unpaired C-1; wrong: A-1 and C"
    assert found["circular"] == 3 / 5, "right: A, B, B-flip; wrong: A-flip, C"
    assert found["flip_circular"] == 1 / 3, "only B"
    assert (
        found["height/accuracy"] == 3 / 4
        and found["location/accuracy"] == 1
        and found["multi_object/accuracy"] == 1 / 2
    )
    assert found["location_above/accuracy"] == 1


def test_3dsrbench_without_variants() -> None:
    found = measured("3dsrbench", [spatial("AAAAAAAA", "A"), spatial("BBBBBBBB", "C")])
    assert found["vanilla"] == 1 / 2 and found["unparsed"] == 1, "C is not there"
    assert not {"flip", "circular", "flip_circular"} & set(found)
    assert "circular" not in measured("3dsrbench", [spatial("AAAAAAAA", "A"), spatial("AAAAAAAA-flip", "A")])


def vmc(category: str, response: str, answer: str = "A") -> dict[str, Any]:
    return {
        "question": "What?",
        "A": "cat",
        "B": "dog",
        "C": "cow",
        "D": "pig",
        "answer": answer,
        "category": category,
        "response": response,
    }


def test_vmcbench() -> None:
    rows = [
        *(vmc("VQAv2", r) for r in ("A", "A", "A", "B")),
        vmc("GQA", "A"),
        vmc("GQA", "?"),
        vmc("MathVista", "B"),
        vmc("MathVision", "cat"),
        vmc("TextVQA", "A"),
        vmc("AI2D", "B"),
        vmc("ChartQA", "A"),
    ]
    found = measured("vmcbench", rows)
    assert found["n"] == 11 and found["unparsed"] == 1 and found["sets"] == 7
    assert found["micro"] == 7 / 11 and found["macro"] == pytest.approx((3 / 4 + 1 / 2 + 0 + 1 + 1 + 0 + 1) / 7)
    assert (found["General"], found["Reasoning"], found["Math"]) == (3 / 4, 1 / 2, 1 / 2)
    assert (found["Doc & Chart"], found["OCR"]) == (1 / 2, 1) and found["VQAv2/accuracy"] == 3 / 4


def test_vmcbench_has_the_papers_twenty_sets() -> None:
    from lostattn.serving.tasks.task_vmcbench import GROUPS

    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names)) == 20 and [len(g) for g in GROUPS.values()] == [7, 4, 2, 5, 2]
    found = measured("vmcbench", [vmc(name, "A") for name in names])
    assert found["macro"] == found["micro"] == 1 and found["sets"] == 20 and set(GROUPS) <= set(found)
    assert "Math" in measured("vmcbench", [vmc("Math-Vista", "A")]), "spelling of a set's name does not matter"
    other = measured("vmcbench", [vmc("mine", "A"), vmc("OCRVQA", "B")])
    assert other["macro"] == 1 / 2 and other["mine/accuracy"] == 1 and other["OCR"] == 0


def test_guesses_are_drawn_from_the_seed_and_the_item() -> None:
    task = get_task("vmcbench")
    rows = [{**vmc("GQA", "no idea"), "index": n} for n in range(200)]
    answered = [(task.item(Row(n, r)), str(r["response"])) for n, r in enumerate(rows, 1)]
    first = score(task, answered, "lmms-eval", 0)
    assert first.metrics["guessed"] == first.metrics["unparsed"] == 200 and 0.1 < first.metrics["micro"] < 0.4
    drawn = {d.judged.item.id: d.judged.answer for d in first.decisions}
    again = score(task, answered[::-1], "lmms-eval", 0)
    assert {d.judged.item.id: d.judged.answer for d in again.decisions} == drawn, "the order does not matter"
    assert {d.judged.item.id: d.judged.answer for d in score(task, answered, "vlmevalkit", 1).decisions} != drawn
    mine = score(task, answered).metrics
    assert mine["micro"] == 0 and mine["unparsed"] == 200 and "guessed" not in mine


def test_no_answers_is_a_mistake() -> None:
    for name in ("pope", "vmcbench"):
        with pytest.raises(LostattnError, match="no answers to task"):
            get_task(name).metrics([])
