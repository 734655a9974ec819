"""Which part of the original picture every visual token shows: real processors, marked boxes."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
import tiny
import torch
import transformers as T
from lostattn.patches.family import get_family
from lostattn.patches.geometry import grid_rectangles, overlap, token_rectangles, touched
from lostattn.patches.merged import split_rows
from lostattn.patches.regions import box_overlap
from lostattn.surgery.demo import digits
from lostattn.surgery.tracing.place import read_fit
from places import NEAREST, SQUARE, deaf, eroded, marked, noise
from served import tokenizer

DEMO = Path(digits.__file__).parent / "model"


@pytest.fixture(scope="module")
def plain():
    """name -> plain tiny model (shared: do not change it)."""
    return cache(tiny.make_plain)


def llava_processors():
    """Every way that LLaVA-1.5 checkpoints fit a picture into the tower's square."""
    short = {"shortest_edge": 56}
    return {
        "crop": T.CLIPImageProcessor(size=short, crop_size=SQUARE, **NEAREST),
        "crop a larger one": T.CLIPImageProcessor(size={"shortest_edge": 71}, crop_size=SQUARE, **NEAREST),
        "crop a smaller one": T.CLIPImageProcessor(size={"shortest_edge": 33}, crop_size=SQUARE, **NEAREST),
        "pad": T.LlavaImageProcessor(size=short, crop_size=SQUARE, do_pad=True, **NEAREST),
        "stretch": T.SiglipImageProcessor(size=SQUARE, **NEAREST),
        "stretch and crop": T.CLIPImageProcessor(size={"height": 80, "width": 66}, crop_size=SQUARE, **NEAREST),
    }


def features(model, processor, images):
    """Image features of every picture, and what the encoder got."""
    inputs = processor(images=images, return_tensors="pt")
    pixels = inputs.pop("pixel_values")
    with torch.no_grad():
        out = model.model.get_image_features(pixels, **inputs)
    return out.pooler_output, inputs


def check_places(model, processor, size, fit=None, wrap=lambda images: images, others=()):
    """Mark boxes in a picture: the tokens whose features move are those whose rectangle the box touches.

    The processor samples the nearest pixel, so a box is seen for certain only where a whole processed pixel lies in it.
    """
    draw, image = random.Random(0), noise(size)
    (before, *more), arguments = features(model, processor, wrap([image, *others]))
    rectangles = token_rectangles(model.model, arguments, [size] * (1 + len(more)), fit)[0]
    assert len(rectangles) == len(before)
    wide, high = ((rectangles[:, i + 2] - rectangles[:, i]).nan_to_num(0).max() * size[i] for i in (0, 1))
    patch = model.config.vision_config.patch_size
    pixel, moved = (float(wide) / patch, float(high) / patch), 0
    for _ in range(12):
        w, h = draw.randint(size[0] // 4, size[0] // 2), draw.randint(size[1] // 4, size[1] // 2)
        box = (draw.randint(0, size[0] - w), draw.randint(0, size[1] - h), w, h)
        (after, *rest), _ = features(model, processor, wrap([marked(image, box), *others]))
        assert all(map(torch.equal, rest[len(rest) - len(others) :], more[len(more) - len(others) :]))
        changed = (after - before).abs().amax(-1) > 1e-6
        assert not (changed & ~touched(rectangles, [box], size)).any(), box
        inner = eroded(box, pixel)
        if min(inner[2:]) > 0:
            assert not (touched(rectangles, [inner], size) & ~changed).any(), box
            moved += int(changed.sum())
    assert moved


SIZES = [(100, 60), (61, 150), (57, 56), (203, 77)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", llava_processors())
def test_places_in_one_square(way, size):
    processor = llava_processors()[way]
    check_places(deaf(make("llava-llama")), processor, size, read_fit(processor))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [n for n in tiny.ONE_PER_FAMILY if get_family(tiny.family_of(n)).split is split_rows])
def test_places_in_a_grid(name, size):
    """Alone and beside a picture of another shape."""
    model = deaf(tiny.make_plain(name))
    processor = grid_processor(name, model.config)
    check_places(model, processor, size)
    check_places(model, processor, size, others=[noise((140, 66), 1)])


def grid_processor(name, config):
    """The family's own image processor, for pictures of up to 12 tokens."""
    made = tiny.TINY[tiny.family_of(name)].processor(config, tokenizer(), "").image_processor
    side = made.patch_size * made.merge_size
    frames = made.temporal_patch_size if isinstance(made, T.Glm4vImageProcessor) else 1  # whose sizes are of all frames
    size = {"shortest_edge": side**2 * frames, "longest_edge": 12 * side**2 * frames}
    return type(made)(size=size, patch_size=made.patch_size, **NEAREST)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [14, 12])
@pytest.mark.parametrize("name", ["llava_next-mistral", "llava_onevision"])
def test_places_in_tiles(name, patch, size):
    """Base picture, unpadded tiles, line breaks; with patches of 12 the tower drops the last 8 pixels of each tile."""
    check_places(deaf(make(name, patch)), tile_processor(name), size)


@pytest.mark.parametrize("size", SIZES)
def test_places_in_tiles_that_the_model_shrinks(size):
    model = deaf(make("llava_onevision"))
    model.config.vision_aspect_ratio = "anyres_max_1"
    check_places(model, tile_processor("llava_onevision"), size)


@pytest.mark.parametrize("size", SIZES)
def test_places_of_several_pictures_in_one_prompt(size):
    """OneVision pads them to squares and cuts no tiles."""
    model = deaf(make("llava_onevision"))
    check_places(model, tile_processor("llava_onevision"), size, wrap=lambda images: [[images[0], images[0]]])


def make(name, patch=14):
    torch.manual_seed(0)
    config = tiny.CONFIGS[name]()
    config.vision_config.patch_size = patch
    return tiny.get_family(config.model_type).plain_class(config).eval()


def tile_processor(name):
    kind = T.LlavaNextImageProcessor if name.startswith("llava_next") else T.LlavaOnevisionImageProcessor
    crop = {"crop_size": SQUARE, "size": {"shortest_edge": 56}} if name.startswith("llava_next") else {"size": SQUARE}
    return kind(image_grid_pinpoints=tiny.PINPOINTS, **crop, **NEAREST)


def test_key_tokens_and_overlap_on_a_plain_grid():
    """The same numbers as the authors' box_overlap; a key token is one that shares any area with a box."""
    draw = random.Random(0)
    for _ in range(20):
        rows, columns, size = draw.randint(1, 9), draw.randint(1, 9), (draw.randint(9, 300), draw.randint(9, 300))
        boxes = [[draw.uniform(-5, size[0]), draw.uniform(-5, size[1]), draw.uniform(1, 99), draw.uniform(1, 99)]]
        boxes.append([size[0] / 3, size[1] / 3, 2.0, 3.0])
        rectangles = grid_rectangles(rows, columns)
        wanted = box_overlap(boxes, size, (28 * columns, 28 * rows), rows, columns)
        assert torch.allclose(overlap(rectangles, boxes, size), wanted, atol=1e-5)
        assert torch.equal(touched(rectangles, boxes, size), wanted > 0)
    assert touched(grid_rectangles(2, 2), [[5, 0, 5, 5]], (10, 10)).tolist() == [False, True, False, False]
    assert not overlap(torch.full((2, 4), torch.nan), [[0, 0, 5, 5]], (10, 10)).any()
