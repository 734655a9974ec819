"""Answers on disk, progress, paired statistics of tasks, and their report."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.evaluation.rate import Rate, duration
from lostattn.serving.evaluation.store import Answers, Reply, alone_in, items_fingerprint
from lostattn.serving.evaluation.versus import (
    POWER_HEAD,
    Outcome,
    changed_questions,
    clusters,
    outcome_rows,
    power_rows,
)
from lostattn.serving.stats import equivalence, mcnemar, paired_difference, questions_needed
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.score import score
from lostattn.serving.tasks.task import Item
from PIL import Image

SETTINGS = {"model": "m", "max_tokens": 4}


def pope(n: int, per_picture: int = 1) -> list[Item]:
    """Questions whose right answer is yes for even numbers; `per_picture` share a picture."""
    task = get_task("pope")
    return [
        task.item(
            Row(
                i,
                {
                    "question": f"Is there a dog in the image {i}?",
                    "question_id": i,
                    "category": "random",
                    "answer": "no" if i % 2 else "yes",
                    "image": f"{i // per_picture}.png",
                },
            )
        )
        for i in range(n)
    ]


def store(tmp_path: Path, items: list[Item], **changes: Any) -> Answers:
    return Answers(tmp_path / "pope" / "m", {**SETTINGS, **changes}, items)


def test_answers_survive_a_cut_in_the_middle_of_a_line(tmp_path: Path) -> None:
    items = pope(4)
    store(tmp_path, items).add({2: Reply("yes", "stop", "closed"), 0: Reply("ünï\n", "length")})
    part = tmp_path / "pope" / "m.part.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole + b'{"index": 1, "id": "1", "resp')
    again = store(tmp_path, items)
    assert again.found == {2: Reply("yes", "stop", "closed"), 0: Reply("ünï\n", "length")} and not again.done
    assert part.read_bytes() == whole
    again.add({1: Reply("no", "stop"), 2: Reply("another", "stop")})
    assert store(tmp_path, items).found[2].text == "yes", "an answer that is there stays"


def test_finished_answers_are_in_the_items_order_and_read_again(tmp_path: Path) -> None:
    items = pope(3)
    first = store(tmp_path, items)
    first.add({1: Reply("b", "stop")})
    first.add({2: Reply("c", "stop"), 0: Reply("a", "stop")})
    assert first.done
    first.finish([{"correct": i == 1} for i in range(3)])
    assert not first.part.exists()
    rows = [json.loads(line) for line in first.final.read_text().splitlines()]
    assert [(r["index"], r["id"], r["response"], r["correct"]) for r in rows] == [
        (0, items[0].id, "a", False),
        (1, items[1].id, "b", True),
        (2, items[2].id, "c", False),
    ]
    assert store(tmp_path, items).replies == first.replies


def test_answers_of_other_settings_are_refused_by_name_and_kept(tmp_path: Path) -> None:
    items = pope(2)
    store(tmp_path, items).add({0: Reply("a", "stop")})
    before = (tmp_path / "pope" / "m.part.jsonl").read_bytes()
    with pytest.raises(LostattnError, match=r"max_tokens was 4, is 5.*choose another --out"):
        store(tmp_path, items, max_tokens=5)
    assert (tmp_path / "pope" / "m.part.jsonl").read_bytes() == before


def test_rows_of_other_items_are_not_taken(tmp_path: Path) -> None:
    items = pope(3)
    store(tmp_path, items).add({0: Reply("a", "stop"), 1: Reply("b", "stop")})
    assert store(tmp_path, [items[0], items[2], items[1]]).found == {0: Reply("a", "stop")}


def test_fingerprint_follows_prompts_and_pictures(tmp_path: Path) -> None:
    items = pope(2)
    assert items_fingerprint(items) == items_fingerprint(pope(2)) != items_fingerprint(items[:1])
    task = get_task("pope")
    made = {"question": "Is there a dog in the image?", "question_id": 1, "category": "random", "answer": "no"}
    pictures = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    one, other = (items_fingerprint([task.item(Row(1, {**made, "image": p}))]) for p in pictures)
    assert one != other


def test_a_lock_keeps_others_out_until_its_block_ends(tmp_path: Path) -> None:
    with alone_in(tmp_path / "x" / "lock") as first, alone_in(tmp_path / "x" / "lock") as second:
        assert first and not second
    with alone_in(tmp_path / "x" / "lock") as third:
        assert third


def test_progress_tells_rate_and_rest(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lostattn")
    now = [0.0]
    rate = Rate("pope, m", 100, 10, lambda: now[0])
    assert caplog.messages == ["pope, m: 10 of 100 answers were there before"]
    now[0] = 1.0
    rate(20)
    assert len(caplog.messages) == 1, "not every answer is a line"
    now[0] = 10.0
    rate(30)
    assert caplog.messages[1] == "pope, m: 30/100 answers, 2/s, 35 s left"
    now[0] = 11.0
    rate(100)
    last = caplog.messages[2]
    assert last.startswith("pope, m: 100/100 answers, 8.18/s") and "left" not in last
    assert [duration(x) for x in (59.4, 60, 3725)] == ["59 s", "1 min 00 s", "1 h 02 min"]


def outcome(model: str, items: list[Item], answers: list[str], task: str = "pope") -> Outcome:
    found = score(get_task(task), list(zip(items, answers, strict=True)))
    return Outcome(task, model, found, [Reply(a, "stop", "plain") for a in answers], 1.0)


def test_statistics_are_paired_clustered_and_corrected() -> None:
    items = pope(12, per_picture=3)
    right = ["no" if i % 2 else "yes" for i in range(12)]
    wrong = ["yes" if i % 2 else "no" for i in range(12)]
    worse, worst = right[:9] + wrong[9:], wrong[:6] + right[6:9] + ["perhaps", "", "yes no"]
    rows = outcome_rows([outcome("a", items, right), outcome("b", items, worse), outcome("c", items, worst)], seed=3)
    labels = [item.cluster for item in items]
    truth = {"b": [True] * 9 + [False] * 3, "c": [False] * 6 + [True] * 3 + [False] * 3}
    assert clusters(outcome("a", items, right)) == labels and len(set(labels)) == 4
    assert "difference" not in rows[0] and rows[0]["accuracy"] == {"share": 1.0, "low": 1.0, "high": 1.0}
    for row in rows[1:]:
        expected = paired_difference([True] * 12, truth[row["model"]], 3, labels)
        assert row["difference"]["difference"] == expected.difference and row["difference"]["low"] == expected.low
        assert row["p"] == mcnemar([True] * 12, truth[row["model"]], labels)
        assert (row["gained"], row["lost"]) == (0, truth[row["model"]].count(False))
        found = equivalence([True] * 12, truth[row["model"]], clusters=labels)
        assert row["equivalence"]["low"] == found.low and row["verdict"].startswith("no difference shown (a loss up to")
    assert rows[1]["p_holm"] >= rows[1]["p"] and rows[2]["p_holm"] == min(1.0, 2 * min(r["p"] for r in rows[1:]))
    assert rows[2]["unparsed"] == 3 and rows[1]["agreement"] == rows[1]["same_text"] == 0.75


def test_power_of_what_was_asked() -> None:
    items = pope(600, per_picture=2)
    right = ["no" if i % 2 else "yes" for i in range(600)]
    results = outcome_rows([outcome("a", items, right), outcome("b", items, ["perhaps"] * 30 + right[30:])])
    (row,) = power_rows(results)
    assert len(row) == len(POWER_HEAD) and row[:4] == ["pope", "b", "600", "30 (5.0 %)"]
    effect = 600 / results[1]["equivalence"]["effective_n"]
    assert 1.9 < effect <= 2.01 and row[5] == str(questions_needed(0.01, 0.05, design_effect=effect))
    assert power_rows(outcome_rows([outcome("a", items, right), outcome("b", items, right)]))[0][3] == "0 (0.0 %)"
    assert power_rows(results[:1]) == []


def test_questions_that_changed() -> None:
    items = pope(60)
    right = ["no" if i % 2 else "yes" for i in range(60)]
    base = right[:50] + ["hm"] * 10
    worse = outcome("b", items, ["hm"] * 20 + right[20:50] + ["hm"] * 2 + right[52:])
    found = changed_questions([outcome("a", items, base), worse, outcome("c", items, base)])
    assert [q["row"] for q in found] == [*range(8), *range(52, 56)], "lost ones, and a third for the gained"
    assert found[0]["id"] == items[0].id and found[0]["gold"] == "yes" and items[0].text == found[0]["question"]
    assert found[0]["answers"] == [
        {"model": "a", "text": "yes", "answer": "yes", "correct": True},
        {"model": "b", "text": "hm", "answer": None, "correct": False},
        {"model": "c", "text": "yes", "answer": "yes", "correct": True},
    ]
    assert [q["row"] for q in changed_questions([outcome("a", items, right), worse], 100)] == list(range(20)) + [50, 51]
    assert [q["row"] for q in changed_questions([outcome("a", items, right)] * 2, 4)] == [0, 15, 30, 45]
    assert len(changed_questions([outcome("a", items[:3], right[:3])])) == 3


def test_holm_counts_all_tasks() -> None:
    items = pope(20)
    right, none = ["no" if i % 2 else "yes" for i in range(20)], ["perhaps"] * 20
    one = [outcome("a", items, right), outcome("b", items, none)]
    assert outcome_rows(one)[1]["p_holm"] == outcome_rows(one)[1]["p"], "a single comparison needs no correction"
    digits = get_task("digits")
    rows = [
        digits.item(Row(i, {"question": "Is there a 7 in the image?", "answer": "yes", "id": i})) for i in range(20)
    ]
    more = [outcome("a", rows, ["yes"] * 20, "digits"), outcome("b", rows, ["no"] * 10 + ["yes"] * 10, "digits")]
    both = outcome_rows([*one, *more])
    assert both[1]["p_holm"] == pytest.approx(2 * both[1]["p"]) and both[3]["p_holm"] == both[3]["p"]
