"""Plans in place, and answers in batches, in every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lostattn.serving.evaluation.rate import Rate
from lostattn.serving.evaluation.store import Answers
from lostattn.serving.tasks.task import Item
from lostattn.surgery.chat import Chat
from lostattn.surgery.evaluation.local import Encoded, answer_locally, encode, generate
from lostattn.surgery.patch import patch_from_spec
from lostattn.surgery.planner import make_plan
from lostattn.surgery.spec import PatchSpec
from lostattn.surgery.sweep.swap import load_with_plan, swap_plan
from served import pictures, write_checkpoint
from tiny import ONE_PER_FAMILY

SPECS = [
    PatchSpec(mode="vision_attention", layers="0-2", heads="all"),
    PatchSpec(mode="patch_complexity", layers="1", heads="all", scores="prob"),
    PatchSpec(layers="none", heads="all"),
]


@pytest.mark.slow
@pytest.mark.parametrize("family", ONE_PER_FAMILY)
def test_plans_in_place_and_batches(family: str, tmp_path: Path) -> None:
    base = write_checkpoint(family, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    shown = [*pictures(3, seed=1), *pictures(3, seed=1)]
    items = [Item(str(i), str(i), {}, (0, "What?"), "A", images=(picture,)) for i, picture in enumerate(shown)]
    one = load_with_plan(base, config, make_plan(SPECS[-1], config, base).plan)
    inputs = [encode(one.processor, item) for item in items]
    seen = []
    for number, spec in enumerate(SPECS):
        swap_plan(one.model, make_plan(spec, config, base).plan)
        patch_from_spec(base, tmp_path / str(number), spec)
        exported = Chat.load(tmp_path / str(number))
        with torch.no_grad():
            ours, theirs = ([chat.model(**i).logits for i in inputs[:3]] for chat in (one, exported))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), spec
        seen.append(torch.cat([x[0, -1] for x in ours]))
        answers = Answers(tmp_path / "answers" / str(number), {}, items)
        answer_locally(one, Encoded(one.processor, items), answers, 3, 4, Rate("t", len(items), 0))
        alone = [generate(one, i, 3)[0] for i in inputs]
        assert [a.text for a in answers.replies] == [a.text for a in alone]
    plain = Chat.load(base)
    with torch.no_grad():
        assert all(torch.equal(plain.model(**i).logits, o) for i, o in zip(inputs[:3], ours, strict=True))
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
