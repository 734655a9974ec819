"""Qwen3-VL's deepstack: features of earlier vision layers, added to the hidden states of visual positions."""

from __future__ import annotations

import pytest
import tiny
import torch

NAME = "qwen3_vl"
GREEDY = {"do_sample": False, "max_new_tokens": 2, "suppress_tokens": [tiny.IMAGE, tiny.VIDEO]}


def watched(model, run):
    """(positions, features) of every addition while something runs."""
    decoder, seen = model.model.language_model, []
    real = type(decoder)._deepstack_process

    def watch(hidden, positions, features):
        seen.append((positions, features))
        return real(decoder, hidden, positions, features)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(decoder, "_deepstack_process", watch)
        run(model)
    return seen


@pytest.mark.parametrize("beams", [1, 3])
def test_the_same_features_at_the_same_positions(beams, plain):
    """Of several images in a padded batch, with and without beams."""
    inputs = tiny.left_pad([tiny.make_inputs(NAME, images=1, seed=1), tiny.make_inputs(NAME, images=3, seed=2)])

    def run(model):
        model.generate(**inputs, **GREEDY, num_beams=beams)

    model = tiny.make_patched(plain(NAME), tiny.make_plan(NAME))
    found, wanted = watched(model, run), watched(plain(NAME), run)
    assert len(found) == len(wanted) == 2  # one per level, in the prefill alone
    for (place, features), (place_wanted, features_wanted) in zip(found, wanted, strict=True):
        assert torch.equal(place, place_wanted) and torch.equal(features, features_wanted)
        assert torch.equal(place[::beams], inputs["input_ids"] == tiny.IMAGE)
    assert not torch.equal(found[0][1], found[1][1])


def test_they_reach_the_answer(plain):
    """Without them the patched model says something else, so the oracle's agreement means that they were added."""
    model = tiny.make_patched(plain(NAME), tiny.make_plan(NAME))
    inputs = tiny.make_inputs(NAME)
    with torch.no_grad():
        wanted = model(**inputs).logits
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.model.language_model, "_deepstack_process", lambda hidden, *rest: hidden)
            assert not torch.allclose(model(**inputs).logits, wanted, atol=1e-2)
