"""The prior where vLLM encodes images, and on its way to the layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from lostattn.patches.mode import get_mode
from lostattn.patches.plan import FEATURES, Pixels, Plan
from lostattn.serving.engine.models.encode import append_scores, item_scores, split_scores
from tiny import VIDEO_FAMILIES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_travel_bit_by_bit(dtype: torch.dtype) -> None:
    scores = torch.tensor([1.0000001, -3e-39, 7e20, 0.1])
    (joined,) = append_scores([torch.randn(4, 6).to(dtype)], [scores])
    embedding, found = split_scores(joined)
    assert embedding.shape == (4, 6) and torch.equal(found, scores[:, None])
    several = torch.stack([scores, -scores, scores * 3], 1)
    (joined,) = append_scores([torch.randn(4, 6).to(dtype)], [several])
    embedding, found = split_scores(joined, 3)
    assert embedding.shape == (4, 6) and torch.equal(found, several)


@pytest.mark.parametrize("mode", ["patch_complexity", "noise"])
def test_fitted_features_are_those_of_transformers(mode: str) -> None:
    """The same images through the patched model's own encoder."""
    plan = tiny.make_plan(
        "qwen2_5_vl",
        mode,
        heads={0: (0, 1)},
        scores="fitted",
        features=FEATURES,
        weights={0: ((1.0,) * len(FEATURES),)},
        levels={0: (0.0, 0.0)},
    )
    model, inputs = tiny.make_patched(tiny.make_plain("qwen2_5_vl"), plan), tiny.make_inputs("qwen2_5_vl", 2)
    pixels, grid = inputs["pixel_values"], inputs["image_grid_thw"]
    with torch.no_grad():
        wanted = model.model.get_image_features(pixels, grid)["sap_prior"]
    inner = SimpleNamespace(config=model.config)
    found = item_scores(plan, inner, pixels, {"image_grid_thw": grid}, [len(w) for w in wanted], None)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == (len(b), 1 + len(FEATURES)) and torch.equal(a, b)


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
@pytest.mark.parametrize("mode", ["patch_complexity", "noise"])
def test_scores_of_videos_are_those_of_transformers(mode: str, name: str) -> None:
    if name.startswith("llava"):
        pytest.skip("its videos are put together by vLLM's class, see test_vllm_families.py")
    plan = tiny.make_plan(name, mode, scores="log")
    model, inputs = tiny.make_patched(tiny.make_plain(name), plan), tiny.make_video_inputs(name, ("video", "video"))
    pixels, grid = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    with torch.no_grad():
        wanted = model.model.get_video_features(pixels, grid)["sap_prior"]
    inner = SimpleNamespace(config=model.config)
    found = item_scores(plan, inner, pixels, {"video_grid_thw": grid}, [len(w) for w in wanted], None, "video")
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b) and float(a.exp().sum()) == pytest.approx(1.0), "normalised over the whole video"


@pytest.mark.parametrize("mode", ["patch_complexity", "noise"])
def test_bytes_and_normalised_pixels_give_one_prior(mode: str) -> None:
    """vLLM may hand on bytes and normalise them inside the tower, where transformers normalises first."""
    pixels = Pixels((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    values: dict[str, Any] = {
        "family": "qwen2_5_vl",
        "mode": mode,
        "preset": "paper",
        "scores": "raw",
        "queries": "all",
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "heads": {0: (0, 1)},
        "options": get_mode(mode).settle("paper"),
        "pixels": pixels,
    }
    vision = SimpleNamespace(patch_size=14, spatial_merge_size=2, in_channels=3, temporal_patch_size=2)
    inner = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    raw = torch.randint(0, 256, (96, 3, 1, 196), dtype=torch.uint8).expand(-1, -1, 2, -1)
    mean, std = (torch.tensor(x)[:, None, None] for x in (pixels.mean, pixels.std))
    normalised = (raw * pixels.rescale - mean) / std
    arguments = {"image_grid_thw": torch.tensor([[1, 8, 8], [1, 4, 8]])}
    found = [item_scores(Plan(**values), inner, x.reshape(96, -1), arguments, [16, 8], None) for x in (raw, normalised)]
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-6) and a.std() > 0
