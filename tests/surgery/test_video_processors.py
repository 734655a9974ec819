"""Real processors: a clip becomes the visual tokens that the patched model has numbers for, in every family with videos."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import served
import tiny
import torch
from lostattn.patches.errors import LostattnError
from lostattn.patches.family import get_family
from lostattn.serving.reading.videos import Clip
from lostattn.surgery.chat import Chat, visual_ids

NAMES = ["qwen2_5_vl", "qwen3_vl", "glm4v", "llava_onevision", "internvl", "smolvlm"]
VIDEOS = {"glm4v": "<|begin_of_video|><|video|><|end_of_video|>", "internvl": "<video>", "smolvlm": "<video>"}


def video_placeholder(name: str) -> str:
    return VIDEOS.get(name) or served.placeholder(name).replace("image", "video")


def make_chat(name: str) -> Chat:
    """A random patched model with its real processor, without a folder."""
    words = served.tokenizer()
    config = served._config(name, words)
    torch.manual_seed(0)
    plain = tiny.awake(get_family(name).plain_class(config).eval())
    template = served.TEMPLATE.replace("PICTURE", served.placeholder(name))
    template = template.replace(
        "{% elif c.type == 'text'", f"{{% elif c.type == 'video' %}}{video_placeholder(name)}{{% elif c.type == 'text'"
    )
    processor = tiny.TINY[name].processor(config, words, template)
    return Chat(tiny.make_patched(plain, tiny.make_plan(name)), processor, True)


def clip_of(frames: int, seed: int = 0) -> Clip:
    """Blocks of random colours."""
    blocks = np.random.default_rng(seed).integers(0, 255, (frames, 6, 8, 3)).astype("uint8")
    return Clip(blocks.repeat(28, 1).repeat(28, 2), tuple(range(0, 5 * frames, 5)), 5 * frames, 10.0)


@pytest.mark.parametrize("name", NAMES)
def test_clips_become_tokens_with_numbers(name: str) -> None:
    chat, clip = make_chat(name), clip_of(4)
    inputs = chat.encode(clip, "What is it?")
    visual = chat.visual(inputs)
    runs = int((visual.int().diff() == 1).sum())
    assert runs == {"qwen2_5_vl": 1, "qwen3_vl": 2, "glm4v": 2, "llava_onevision": 1}.get(name, 4)
    if "pixel_values_videos" not in inputs:  # frames are pictures there, each with a prior of its own
        assert get_family(name).videos is None and visual_ids(chat.model.config) == [chat.model.config.image_token_id]
    elif "video_grid_thw" in inputs:
        assert (
            int(inputs["video_grid_thw"].prod()) == 4 * int(visual.sum()) and int(inputs["video_grid_thw"][0, 0]) == 2
        )
    else:
        assert int(visual.sum()) % 4 == 1  # a line break
    with torch.no_grad():
        found = chat.model(**inputs).logits
        assert set(chat.model.sap_settings.counts) == {"closed"}
        chat.model.sap_settings.force("eager")
        assert (chat.model(**inputs).logits - found).abs().max() < 2e-4
    other = chat.encode(clip_of(4, seed=1), "What is it?")
    assert other["input_ids"].equal(inputs["input_ids"])
    with torch.no_grad():
        assert not torch.allclose(chat.model(**other).logits[:, -1], found[:, -1], atol=1e-4)
    assert isinstance(chat.answer(clip, "What is it?", 3), str)


def test_families_without_videos_refuse_them() -> None:
    model: Any = SimpleNamespace(config=SimpleNamespace(model_type="sap_llava"))
    with pytest.raises(LostattnError, match="family 'llava' take no videos"):
        Chat(model, None, True).check_videos(True)
    model.config.model_type = "qwen2_vl"
    with pytest.raises(LostattnError, match="no video processor"):
        Chat(model, SimpleNamespace(), True).check_videos(True)
