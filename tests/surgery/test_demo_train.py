"""The demo's pictures, questions and training."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from lostattn.surgery.demo.batches import IGNORE, NO_CELL, NO_DIGIT, cell_labels
from lostattn.surgery.demo.digits import (
    BLANK,
    CELL,
    HELD_OUT,
    MAX_CLASSES,
    MAX_DIGITS,
    TAUGHT,
    Asked,
    Draw,
    Scene,
    ask,
    by_label,
    draw_scene,
    held_out,
    paper,
    render,
)
from lostattn.surgery.demo.folder import MODEL
from lostattn.surgery.demo.train import Trainer, TrainingSettings, orthogonal

# of the first 24 questions with their pictures: the same on every platform
STREAM = "01c9382dcc17a7be4ac6b10b7d66322e09d6f4cc95619b5b72d53be9208d102b"
# losses of the first two steps of the run that made the shipped model
FIRST = (
    {"cell": 2.8009183, "left": 2.9959261},
    {"cell": 2.7450652, "left": 2.9383049},
)


def test_the_same_questions_everywhere() -> None:
    found = hashlib.sha256()
    for q in held_out(24):
        found.update(
            repr((q.question, q.answer, q.kind, q.options, q.boxes, q.image.size)).encode() + q.image.tobytes()
        )
    assert found.hexdigest() == STREAM
    assert [q.question for q in held_out(6)] == [q.question for q in held_out(24)][:6]


@pytest.mark.parametrize("seed", range(40))
def test_answers_are_true(seed: int) -> None:
    """Every answer again, from nothing but the grid of digits."""
    draw = Draw(seed)
    scene = draw_scene(draw, draw.between(1, 8), draw.between(1, 8), "held_out")
    grid = [list(scene.labels[r * scene.cols : (r + 1) * scene.cols]) for r in range(scene.rows)]
    flat = [d for d in scene.labels if d != BLANK]
    assert 1 <= len(flat) <= MAX_DIGITS and len(set(flat)) <= MAX_CLASSES
    for kind in TAUGHT * 3:
        asked = ask(draw, scene, kind)
        if asked is None:
            assert kind in ("right", "read", "count")
            continue
        assert asked.answer == answer_of(kind, asked, grid, flat)


def answer_of(kind: str, asked: Asked, grid: list[list[int]], flat: list[int]) -> str:
    digits = [int(d) for d in re.findall(r"\d", asked.question)]
    if kind == "presence":
        return "yes" if digits[0] in flat else "no"
    if kind == "choice":
        (right,) = [i for i, d in enumerate(digits) if d in flat]
        return "ABCD"[right]
    if kind == "count":
        return str(flat.count(digits[0]))
    if kind == "largest":
        return str(max(flat))
    ((row, col),) = [(r, c) for r, line in enumerate(grid) for c, d in enumerate(line) if d == digits[0]]
    rest = grid[row][col + 1 :]
    run = rest[: next((i for i, d in enumerate(rest) if d == BLANK), len(rest))]
    return str(run[0]) if kind == "right" else "".join(map(str, run))


def test_training_never_sees_what_is_held_out() -> None:
    train, test = ({i for own in by_label(split) for i in own} for split in ("train", "held_out"))
    assert not train & test and len(train | test) == 1797 and all(i % HELD_OUT == HELD_OUT - 1 for i in test)


def test_paper_is_not_white_and_digits_are_dark() -> None:
    scene = Scene(2, 2, (by_label("train")[7][0], BLANK, BLANK, BLANK), paper=5)
    grey = np.asarray(render(scene))[:, :, 0].astype(int)
    blank = paper(5, 2, 2)
    assert blank.std() > 1 and blank.min() > 100 and (grey[:, CELL:] == blank[:, CELL:].clip(0, 255)).all()
    assert (grey[:CELL, :CELL] < 60).any()


def test_what_cells_say() -> None:
    own = by_label("train")
    labels = cell_labels(Scene(1, 3, (own[4][0], BLANK, own[9][0])))
    assert labels.shape == (12, 3)
    corners = labels.view(1, 2, 3, 2, 3)[0, 1, :, 1]
    assert corners.tolist() == [[4, NO_CELL, NO_CELL], [NO_DIGIT, 4, NO_CELL], [9, NO_DIGIT, 4]]
    assert (labels != IGNORE).all(-1).sum() == 3


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)])
def test_updates_are_orthogonal(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.3 and values.max() < 1.3


@pytest.mark.slow
def test_training_begins_as_the_record_says() -> None:
    """The packing is the processor's (checked when a run begins), and the first steps are those of the shipped model's log."""
    log = [json.loads(line) for line in (MODEL / "training_log.jsonl").read_text().splitlines()]
    assert log[0]["settings"] == asdict(TrainingSettings()) and log[-1]["step"] == TrainingSettings().steps
    threads = torch.get_num_threads()
    try:
        trainer = Trainer(TrainingSettings())
        found = [trainer.step(i) for i in range(2)]
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    for losses, wanted in zip(found, FIRST, strict=True):
        assert losses == pytest.approx(wanted, rel=2e-3)
