"""InternVL, Gemma 3, Mistral 3, Idefics 3 and SmolVLM: where the tokens of tiles lie, masked towers, refusals."""

from __future__ import annotations

import copy
import inspect
import random

import pytest
import tiny
import torch
import transformers as T
from lostattn.patches.crops import Limits
from lostattn.patches.errors import LostattnError
from lostattn.patches.family import get_family
from lostattn.patches.geometry import token_rectangles, touched
from lostattn.patches.supplied_regions import use_regions
from lostattn.serving.engine.versions import check_served, serves
from places import NEAREST, SQUARE, deaf, eroded, marked, noise

NAMES = ["internvl", "gemma3", "mistral3", "idefics3", "smolvlm"]
SPLIT = {"size": {"longest_edge": 224}, "max_image_size": {"longest_edge": 56}}


def processors():
    """name -> (family, image processor), cutting pictures and not."""
    gemma = {"size": {"height": 84, "width": 84}, "pan_and_scan_max_num_crops": 4, **NEAREST}
    gemma |= {"pan_and_scan_min_crop_size": 20, "pan_and_scan_min_ratio_to_activate": 1.2}
    return {
        "tiles": ("internvl", T.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=6, **NEAREST)),
        "many tiles": (
            "internvl",
            T.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, min_patches=3, max_patches=12, **NEAREST),
        ),
        "no tiles": ("internvl", T.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=False, **NEAREST)),
        "pan and scan": ("gemma3", T.Gemma3ImageProcessor(do_pan_and_scan=True, **gemma)),
        "one square": ("gemma3", T.Gemma3ImageProcessor(do_pan_and_scan=False, **gemma)),
        "own shape": (
            "mistral3",
            T.PixtralImageProcessor(size={"longest_edge": 140}, patch_size={"height": 28, "width": 28}, **NEAREST),
        ),
        "rows of patches": (
            "gemma4",
            T.Gemma4ImageProcessor(patch_size=14, pooling_kernel_size=2, max_soft_tokens=70, **NEAREST),
        ),
        "splits": ("idefics3", T.Idefics3ImageProcessor(**SPLIT, **NEAREST)),
        "no splits": ("idefics3", T.Idefics3ImageProcessor(do_image_splitting=False, **SPLIT, **NEAREST)),
        "own size": ("idefics3", T.Idefics3ImageProcessor(do_resize=False, **SPLIT, **NEAREST)),
        "small splits": ("smolvlm", T.SmolVLMImageProcessor(**SPLIT, **NEAREST)),
    }


def encoded(model, processor, images):
    """Features of all visual tokens (n, width), and what the encoder got."""
    inputs = processor(images=images, return_tensors="pt")
    wanted = inspect.signature(model.model.get_image_features).parameters
    inputs = {k: v for k, v in inputs.items() if k in wanted}
    with torch.no_grad():
        return torch.cat(list(model.model.get_image_features(**inputs).pooler_output)), inputs


@pytest.mark.parametrize("size", [(100, 60), (61, 150), (57, 56), (203, 77), (20, 19)])
@pytest.mark.parametrize("way", processors())
def test_places_beside_another_picture(way, size):
    """Mark boxes in one of two pictures: the tokens whose features move are those whose rectangle the box touches.

    Processors sample the nearest pixel, some of them twice: a box counts for certain two processed pixels inside its edge.
    """
    name, processor = processors()[way]
    model = deaf(tiny.make_plain(name))
    draw, images = random.Random(0), [noise(size), noise((140, 66), 1)]
    before, arguments = encoded(model, processor, images)
    fit = get_family(name).fit
    sizes = [image.size for image in images]
    found = token_rectangles(model.model, arguments, sizes, None if fit is None else fit(processor))
    assert sum(len(r) for r in found) == len(before)
    rectangles = found[0]
    cell = (rectangles[:, 2:] - rectangles[:, :2]).amax(0) * torch.tensor(size)
    margin = [2 * float(side) / 28 for side in cell]
    moved = 0
    for _ in range(12):
        w, h = (draw.randint(side // 4, side // 2) for side in size)
        box = (draw.randint(0, size[0] - w), draw.randint(0, size[1] - h), w, h)
        after, _ = encoded(model, processor, [marked(images[0], box), images[1]])
        changed = (after - before).abs().amax(-1) > 1e-6
        assert not changed[len(rectangles) :].any()
        changed = changed[: len(rectangles)]
        assert not (changed & ~touched(rectangles, [eroded(box, [-m for m in margin])], size)).any(), box
        inner = eroded(box, margin)
        if min(inner[2:]) > 0:
            assert not (touched(rectangles, [inner], size) & ~changed).any(), box
            moved += int(changed.sum())
    assert moved


def test_sizes_that_make_another_number_of_tiles_are_refused():
    model = tiny.make_patched(tiny.make_plain("internvl"), tiny.make_plan("internvl", "region"))
    inputs, boxes = tiny.make_inputs("internvl"), [[(1, 1, 20, 20)]]
    with use_regions(model, boxes, [(112, 56)]), torch.no_grad():
        model(**inputs)
    for sizes, fit in (([(56, 112 * 3)], None), ([(300, 56)], None), ([(112, 56)], Limits(6, least=3))):
        with pytest.raises(LostattnError, match="tiles but this call has 3"), use_regions(model, boxes, sizes, fit):
            model(**inputs)


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_a_masked_tower_looks_at_no_padding(name, pool):
    """The right half of a picture is padding: what it holds changes nothing, and its rows do not dilute the mean."""
    plain = tiny.make_plain(name)
    model = tiny.make_patched(plain, tiny.make_plan(name, "vision_attention", options={"pool": pool}))
    inputs = tiny.make_inputs(name)
    pixels, seen = inputs["pixel_values"], inputs["pixel_attention_mask"].clone()
    seen[:, 0, :, 28:] = 0
    other = pixels.clone()
    other[:, 0, :, :, 28:] = 7.0
    with torch.no_grad():
        a, b = (model.model.get_image_features(x, seen)["sap_prior"] for x in (pixels, other))
    for x, y in zip(a, b, strict=True):
        assert torch.allclose(x, y, atol=1e-6)
    first = a[0].view(2, 2)
    assert (first[:, 1] == 0).all() and (first[:, 0] > 0).all()
    if pool == "avg":
        assert torch.allclose(first.sum() * 4, torch.tensor(1.0), atol=1e-5)  # four patches a token, all of them real


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_pictures_that_only_fill_up_a_batch_count_nothing(name):
    model = tiny.make_patched(tiny.make_plain(name), tiny.make_plan(name, "noise"))
    inputs = tiny.make_inputs(name, 2)
    with torch.no_grad():
        full = model.model.get_image_features(inputs["pixel_values"], inputs["pixel_attention_mask"])["sap_prior"]
        bare = model.model.get_image_features(inputs["pixel_values"][:, :-1].contiguous())["sap_prior"]
    assert len(full) == len(bare) == 10
    assert all(map(torch.equal, full, bare))


def test_noise_of_a_picture_does_not_depend_on_its_neighbours():
    """A larger neighbour widens Pixtral's canvas."""
    processor = processors()["own shape"][1]
    model = tiny.make_patched(tiny.make_plain("mistral3"), tiny.make_plan("mistral3", "noise"))
    found = []
    for others in ([], [noise((140, 130), 1)]):
        inputs = processor(images=[noise((100, 60)), *others], return_tensors="pt")
        with torch.no_grad():
            found.append(model.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])["sap_prior"][0])
    assert torch.equal(*found)


def test_attention_of_pictures_in_one_row_equals_that_of_each_alone():
    model = tiny.make_patched(tiny.make_plain("mistral3"), tiny.make_plan("mistral3", "vision_attention"))
    inputs = tiny.make_inputs("mistral3", 3)
    pixels, sizes = inputs["pixel_values"], inputs["image_sizes"]
    with torch.no_grad():
        row = model.model.get_image_features(pixels, sizes)["sap_prior"]
        for i, p in enumerate(row):
            alone = model.model.get_image_features(pixels[i : i + 1], sizes[i : i + 1])["sap_prior"][0]
            assert torch.allclose(p, alone, atol=1e-6)


def test_capped_attention_scores_are_refused():
    plain = copy.deepcopy(tiny.make_plain("gemma3"))
    plain.config.text_config.attn_logit_softcapping = 50.0
    with pytest.raises(LostattnError, match="attn_logit_softcapping"):
        tiny.make_patched(plain, tiny.make_plan("gemma3"))


def test_gemma_images_are_read_both_ways():
    """A row of the first image token sees the last one's value, patched or not, in the closed form too."""
    name = "gemma3"
    model = tiny.make_patched(tiny.make_plain(name), tiny.make_plan(name))
    model.sap_settings.force("closed")
    inputs = tiny.make_inputs(name)
    other = {**inputs, "pixel_values": inputs["pixel_values"].clone()}
    other["pixel_values"][..., 56:, 56:] += 1.0  # the last token's pixels
    with torch.no_grad():
        apart = (model(**inputs).logits - model(**other).logits).abs().amax(-1)[0]
    image = inputs["input_ids"][0] == tiny.IMAGE
    first = int(image.nonzero()[0])
    assert (apart[:first] == 0).all() and apart[first] > 1e-3


def test_families_without_a_class_for_vllm_are_refused():
    for name in NAMES:
        if serves(name):
            check_served(name)
        else:
            with pytest.raises(LostattnError, match=f"'{name}' run in transformers alone: their image tokens see"):
                check_served(name)
