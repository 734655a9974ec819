"""What the door changes inside vLLM's API server, in this process: names of content, reasons, opening of pictures."""

from __future__ import annotations

import asyncio
import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hostile import data_url
from lostattn.patches.errors import LostattnError
from lostattn.serving.images import open_image
from lostattn.serving.refusals import unusable_pictures
from pictures import WHITES, WHOLE, deep_png, encoded, grey_alpha_16, ramp
from PIL import Image

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
DEEP = {f"grey {b}": encoded(ramp(b).astype(np.uint16)) for b in WHITES}
DEEP |= {f"colour {b}": deep_png(np.stack([ramp(b)] * 3, -1), 2) for b in WHITES}
DEEP |= {f"alpha {b}": grey_alpha_16(ramp(b), ramp(b)) for b in WHITES}
PICTURES = {**WHOLE, **DEEP}


@pytest.fixture(scope="module")
def door() -> Any:
    from lostattn.serving.engine import door

    door.install()
    door.install()
    return door


def connector(**options: Any) -> Any:
    from lostattn.serving.media import NOWHERE, StrictConnector

    return StrictConnector(allowed_media_domains=[NOWHERE], **options)


@pytest.mark.parametrize("name", PICTURES)
def test_a_server_opens_pictures_as_all_others_do(name: str) -> None:
    wanted = open_image(PICTURES[name])
    loaded = connector().fetch_image(data_url(PICTURES[name], "image/x"))
    later = asyncio.run(connector().fetch_image_async(data_url(PICTURES[name])))
    for found in (loaded.media, later.media):
        assert found.mode == "RGB" and np.array_equal(found, wanted)
    assert loaded.original_bytes == PICTURES[name]


def test_the_background_of_the_owners_choice() -> None:
    red = connector(media_io_kwargs={"image": {"rgba_background_color": [255, 0, 0]}})
    clear = data_url(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0))))
    assert red.fetch_image(clear).media.getpixel((0, 0)) == (255, 0, 0)
    assert red.fetch_image(clear).io_config != connector().fetch_image(clear).io_config, "another picture to the cache"
    with pytest.raises(LostattnError, match="leave image_mode out"):
        connector(media_io_kwargs={"image": {"image_mode": None}}).fetch_image(clear)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("data:image/png,abc", "must be base64"),
        ("data:image/png;base64,AAAA", "no picture that Pillow can read"),
        ("file:///etc/passwd", "reads no files"),
        (" FILE:///etc/passwd", "reads no files"),
        ("x", "fetches no URLs"),
        ("http://127.0.0.1/a.png", "fetches no URLs"),
        ("", "fetches no URLs"),
        ("data:", "needs a comma"),
    ],
)
def test_what_is_no_picture_is_a_sentence(url: str, said: str) -> None:
    with pytest.raises(LostattnError, match=said):
        connector().fetch_image(url)
    with pytest.raises(LostattnError, match=said):
        asyncio.run(connector().fetch_image_async(url))


@pytest.mark.parametrize("modality", ["image", "video", "audio", "vision_chunk"])
@pytest.mark.parametrize("given", [["a"], [None, "a"], [""], "a", ""])
def test_content_has_no_names(door: Any, modality: str, given: Any) -> None:
    from lostattn.serving.engine.internals import renderer

    with pytest.raises(LostattnError, match="leave uuid out"):
        renderer.parse_mm_uuids({modality: given})
    assert renderer.parse_mm_uuids({modality: [None]}) == {modality: [None]} and renderer.parse_mm_uuids(None) == {}


def test_features_made_elsewhere_are_refused(door: Any) -> None:
    from lostattn.serving.engine.internals import token_serving

    with pytest.raises(LostattnError, match="send content_parts"):
        token_serving.mm_kwargs_from_features(SimpleNamespace())


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ZeroDivisionError("float division"), "float division"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("no placeholder"), "no placeholder"),
        (ValueError("own words"), "own words"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_processors_reason_reaches_the_client(door: Any, raised: Exception, said: str, wrapped: bool) -> None:
    def fail(*_: Any) -> Any:
        if not wrapped:
            raise raised
        try:
            raise raised
        except Exception as error:
            raise ValueError("Failed to apply X on data={...}") from error

    from vllm.multimodal.parse import ImageProcessorItems

    items = {"image": ImageProcessorItems([Image.new("RGB", (2275, 10)), Image.new("RGB", (3, 4))])}
    with pytest.raises(LostattnError) as found:
        door._with_reasons(fail)(None, SimpleNamespace(mm_data_items=items))
    assert said in str(found.value) and "Failed to apply" not in str(found.value)
    assert "these pictures of 2275 x 10, 3 x 4 pixels" in str(found.value)


def test_the_sentence_is_the_one_of_ask() -> None:
    one = unusable_pictures([(2275, 10)], ValueError("too thin\nmore"))
    assert one.startswith(
        "the model's processor cannot use this picture of 2275 x 10 pixels with this question (too thin)"
    )
    assert "and 2 more pixels" in unusable_pictures([(1, 1)] * 6, ValueError("x"))


def test_a_picture_counts_as_sent_when_its_request_was(door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lostattn.serving.engine import handing_over
    from lostattn.serving.engine.internals import AsyncLLM, LruKeyReplicatedSenderCache
    from vllm.multimodal.inputs import MultiModalKwargsItem

    model = SimpleNamespace(get_multimodal_config=lambda: SimpleNamespace(mm_processor_cache_gb=1))
    cache, item = LruKeyReplicatedSenderCache(model), (MultiModalKwargsItem.dummy(), [])
    assert not cache.is_cached_item("a")
    for _ in range(2):  # refused before it was sent: prepared and handed over again
        assert cache.get_and_update_item(item, "a") is item and not cache.is_cached_item("a")

    async def sent(*_: Any, **__: Any) -> str:
        return "queue"

    monkeypatch.setattr(AsyncLLM, "add_request", sent)
    handing_over.hook_requests()
    engine = SimpleNamespace(renderer=SimpleNamespace(_mm_processor_cache=cache))
    prompt = {"type": "multimodal", "mm_hashes": {"image": ["a"]}}
    assert asyncio.run(AsyncLLM.add_request(engine, "1", prompt, {}, priority=1)) == "queue"
    assert cache.is_cached_item("a") and cache.get_and_update_item(None, "a")[0] is None
    monkeypatch.setattr(handing_over, "MOST", 3)
    for name in "bcde":
        cache.get_and_update_item(item, name)
    assert not any(cache.is_cached_item(name) for name in "abcde"), "all are sent anew"


@pytest.mark.parametrize(
    "given", [{"priority": 2**64}, {"priority": -(2**70)}, {"params": {"a": 2**80}}, {"params": "\ud800"}]
)
def test_what_cannot_travel_is_the_clients_mistake(door: Any, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lostattn.serving.engine.internals import AsyncLLM, VLLMValidationError

    arguments = {"request_id": "1", "prompt": "x", "params": {}, **given}
    with pytest.raises(VLLMValidationError, match="cannot be handed to the engine"):
        asyncio.run(AsyncLLM.add_request(SimpleNamespace(), **arguments))


def test_a_seed_draws_nothing_for_a_token_that_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from lostattn.serving.engine.attention import runner

    class Runner:
        """Draws from the generators of all rows, and turns back those of rows whose token is thrown away, as vLLM does."""

        def __init__(self, device: str) -> None:
            self.device = torch.device(device)
            generators = {i: torch.Generator().manual_seed(i) for i in range(3)}
            self.input_batch = SimpleNamespace(num_reqs=3, generators=generators)
            self.discard_request_mask = SimpleNamespace(np=np.array([True, False, True, True]))

        def sample_tokens(self) -> list[int]:
            for generator in self.input_batch.generators.values():
                torch.rand(1, generator=generator)
            return sorted(self.input_batch.generators)

    monkeypatch.setattr(runner, "GPUModelRunner", Runner)
    runner.hook_seeds_on_cpus()
    runner.hook_seeds_on_cpus()
    found, fresh = Runner("cpu"), Runner("cpu").input_batch.generators
    assert found.sample_tokens() == [1] and sorted(found.input_batch.generators) == [0, 1, 2]
    moved = [not torch.equal(found.input_batch.generators[i].get_state(), fresh[i].get_state()) for i in range(3)]
    assert moved == [False, True, False]
    assert Runner("meta").sample_tokens() == [0, 1, 2], "generators of GPUs can be turned back"
