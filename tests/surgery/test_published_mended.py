"""One published size of every family, shrunken: in kind as the published one, and cut, asked and mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cut_and_mended import cut_ask_and_mend
from lostattn.serving.shape import model_shape
from paper_models import shrunken, write_model
from published import find_models
from served import tokenizer

MODELS = {name: model.config for name, model in find_models().items() if model.shrunken}


@pytest.mark.parametrize("name", MODELS)
def test_shrunken_in_kind(name: str) -> None:
    """What decides how a model is cut is as in the published one."""
    real = model_shape(MODELS[name]).family.plain_class.config_class.from_dict(json.loads(json.dumps(MODELS[name])))
    small = shrunken(MODELS[name], tokenizer())
    a, b = real.get_text_config(), small.get_text_config()
    for key in (
        "model_type",
        "num_attention_heads",
        "num_key_value_heads",
        "hidden_act",
        "first_k_dense_replace",
        "sliding_window",
    ):
        assert getattr(a, key, None) == getattr(b, key, None), key
    assert set(getattr(a, "layer_types", None) or ()) == set(getattr(b, "layer_types", None) or ())
    if sections := a.rope_parameters.get("mrope_section"):
        share = sum(sections) / sum(b.rope_parameters["mrope_section"])
        assert [share * n for n in b.rope_parameters["mrope_section"]] == list(sections)
    for key in (
        "tie_word_embeddings",
        "vision_feature_layer",
        "scale_factor",
        "downsample_ratio",
        "spatial_merge_size",
    ):
        assert getattr(real, key, None) == getattr(small, key, None), key
    for key in ("model_type", "patch_size", "spatial_merge_size", "use_qk_norm", "norm_type", "num_attention_heads"):
        assert getattr(real.vision_config, key, None) == getattr(small.vision_config, key, None), key


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_cut_asked_and_mended(name: str, tmp_path: Path) -> None:
    cut_ask_and_mend(write_model(name, MODELS[name], tmp_path / "base"), tmp_path)
