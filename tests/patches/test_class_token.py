"""LLaVA whose visual tokens are all of the tower's, the CLS token too, or all but the first patch of a tower without one."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from families import CLIP, SIGLIP
from lostattn.patches.family import get_family
from lostattn.patches.geometry import token_rectangles
from lostattn.patches.mode import MODES
from lostattn.patches.supplied_regions import use_regions

# tower, strategy -> visual tokens of a picture of 4 x 4 patches, and how many of them stand in front of the first patch
KINDS = {
    ("clip", "default"): (16, 0),
    ("clip", "full"): (17, 1),
    ("siglip", "full"): (16, 0),
    ("siglip", "default"): (15, -1),
}


def make(tower: str, strategy: str) -> Any:
    """A tiny plain model."""
    config = tiny.CONFIGS["llava-llama"]()
    values = {**config.to_dict(), "vision_config": {"clip": CLIP, "siglip": SIGLIP}[tower]}
    torch.manual_seed(0)
    family = get_family("llava")
    config = family.plain_class.config_class.from_dict({**values, "vision_feature_select_strategy": strategy})
    model = tiny.awake(family.plain_class(config).eval())
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


def inputs_for(tokens: int) -> dict[str, torch.Tensor]:
    """Text, a picture, text."""
    g = torch.Generator().manual_seed(1)
    ids = torch.tensor([[5, 6, 7, *[tiny.IMAGE] * tokens, 8, 9, 10, 11]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 3, 56, 56, generator=g),
    }


def prior_of(plain: Any, mode: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    model = tiny.make_patched(plain, tiny.make_plan("llava-llama", mode))
    with torch.no_grad():
        (found,) = model.model.get_image_features(inputs["pixel_values"])["sap_prior"]
    return found


@pytest.mark.parametrize(("tower", "strategy"), KINDS)
@pytest.mark.parametrize("mode", sorted(MODES))
def test_every_mode_answers(tower: str, strategy: str, mode: str) -> None:
    """Cached decoding equals the pass without a cache, and differs from the plain model."""
    plain, (tokens, _) = make(tower, strategy), KINDS[tower, strategy]
    model, inputs = tiny.make_patched(plain, tiny.make_plan("llava-llama", mode)), inputs_for(tokens)
    with torch.no_grad(), use_regions(model, [[(10, 5, 30, 40)]], [(56, 56)]):
        logits = model(**inputs).logits
        kwargs = {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": [tiny.IMAGE, tiny.VIDEO]}
        cached = model.generate(**inputs, **kwargs)
        assert torch.equal(cached, model.generate(**inputs, **kwargs, use_cache=False))
        assert bool(torch.isfinite(logits).all()) and not torch.allclose(logits, plain(**inputs).logits)


@pytest.mark.parametrize(("tower", "strategy"), KINDS)
def test_patches_keep_their_complexity(tower: str, strategy: str) -> None:
    """A CLS token shows no pixels: 0. The others are those of the same picture in any strategy."""
    tokens, first = KINDS[tower, strategy]
    inputs = inputs_for(tokens)
    found = prior_of(make(tower, strategy), "patch_complexity", inputs)
    patches = prior_of(make("clip", "default"), "patch_complexity", inputs)
    assert found.shape == (tokens,) and bool((patches > 0).all())
    assert torch.equal(found[max(first, 0) :], patches[max(-first, 0) :])
    assert first <= 0 or found[0] == 0


@pytest.mark.parametrize(("tower", "strategy"), KINDS)
def test_a_class_token_receives_attention(tower: str, strategy: str) -> None:
    """Mean over heads and over the visual tokens' rows of the tower's last layer, by transformers' own eager attention."""
    tokens, _ = KINDS[tower, strategy]
    plain, inputs = make(tower, strategy), inputs_for(tokens)
    found = prior_of(plain, "vision_attention", inputs)
    tower_model = plain.model.vision_tower
    tower_model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = tower_model(inputs["pixel_values"], output_attentions=True).attentions[-1]
    shown = weights[0, :, -tokens:, -tokens:]
    assert torch.allclose(found, shown.mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize(("tower", "strategy"), KINDS)
def test_what_tokens_show(tower: str, strategy: str) -> None:
    tokens, first = KINDS[tower, strategy]
    inner = make(tower, strategy).model
    (found,) = token_rectangles(inner, {}, [(56, 56)])
    (whole,) = token_rectangles(make("clip", "default").model, {}, [(56, 56)])
    assert found.shape == (tokens, 4) and torch.equal(found[max(first, 0) :], whole[max(-first, 0) :])
    assert first <= 0 or bool(found[0].isnan().all())
