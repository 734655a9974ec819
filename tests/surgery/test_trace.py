"""Attention tracing: which token shows what, the graph, the ratio, memory, mode `region`, the command."""

from __future__ import annotations

import copy
import json
import sys
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import tiny
import torch
from click.testing import CliRunner
from lostattn.patches import Band, LostattnError, use_regions
from lostattn.patches.geometry import token_rectangles, touched
from lostattn.patches.mode import MODES
from lostattn.surgery.cli import main
from lostattn.surgery.demo import digits
from lostattn.surgery.tracing.compare import Sample, is_correct, summarise
from lostattn.surgery.tracing.graph import LayerGraph
from lostattn.surgery.tracing.watch import Watch, _weights, watched
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

DEMO = Path(digits.__file__).parent / "model"
NEAREST = {"resample": 0, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"height": 56, "width": 56}


@pytest.fixture(scope="module")
def plain():
    """name -> plain tiny model (shared: do not change it)."""
    return cache(tiny.make_plain)


def traced(model, inputs, threshold):
    """Graphs of one forward call, and what the model said."""
    watch = Watch(inputs["input_ids"][0] == tiny.IMAGE, threshold)
    with watched(model, watch), tiny.needed(model) if hasattr(model, "sap_plan") else nullcontext(), torch.no_grad():
        out = model(**inputs, use_cache=False).logits
    return [watch.found[i] for i in sorted(watch.found)], out


def all_weights(model, inputs):
    """Head-averaged weights (S, S) of every layer as the eager form returns them."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with tiny.needed(eager) if hasattr(model, "sap_plan") else nullcontext(), torch.no_grad():
        return [w[0].mean(0) for w in eager(**inputs, use_cache=False, output_attentions=True).attentions]


BAND = Band(0.3, 0.9, "score")
PLANS = {
    "plain": None,
    "paper": {},
    "last rows": {"queries": "last"},
    "after the image": {"queries": "after_image", "blend": 0.5},
    "told where to look": {"mode": "region"},
    "dynamic heads": {"heads": {0: (), 2: ()}, "band": BAND, "scores": "prob_rescaled", "preset": "reference"},
}


@pytest.mark.parametrize("chunk", [1, 4 * 4 * 60 * 3, 2**25])
@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("name", tiny.ONE_PER_FAMILY)
def test_edges_are_those_of_the_eager_weights(name, kind, chunk, plain, monkeypatch):
    monkeypatch.setattr("lostattn.surgery.tracing.watch.CHUNK_BYTES", chunk)
    model = plain(name) if PLANS[kind] is None else tiny.make_patched(plain(name), tiny.make_plan(name, **PLANS[kind]))
    inputs = tiny.make_inputs(name)
    visual = (inputs["input_ids"][0] == tiny.IMAGE).nonzero()[:, 0]
    with tiny.needed(model) if PLANS[kind] is not None else nullcontext(), torch.no_grad():
        before = model(**inputs, use_cache=False).logits
    graphs, out = traced(model, inputs, 0.05)
    assert torch.equal(out, before)
    assert len(graphs) == tiny.LAYERS
    for graph, weights in zip(graphs, all_weights(model, inputs), strict=True):
        block = weights[visual][:, visual]
        dense = torch.zeros_like(block)
        dense[graph.target, graph.source] = graph.weight
        clear = (block - 0.05).abs() > 1e-5  # a weight at the threshold itself may fall on either side
        assert torch.equal((dense > 0)[clear], (block >= 0.05)[clear])
        assert torch.allclose(dense[dense > 0], block[dense > 0], atol=1e-5)
        assert graph.edges


def test_a_sliding_window_is_seen(plain):
    name = "llava-mistral"
    model = copy.deepcopy(plain(name))
    model.config.text_config.sliding_window = 4
    graphs, _ = traced(model, tiny.make_inputs(name), 0.01)
    assert all(int((g.target - g.source).max()) <= 3 for g in graphs)


def test_watching_ends_with_the_block(plain):
    model = plain("llava-llama")
    before = dict(ALL_ATTENTION_FUNCTIONS)
    with pytest.raises(RuntimeError), watched(model, Watch(torch.ones(3, dtype=torch.bool), 0.1)):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before["sdpa"]
        raise RuntimeError
    assert dict(ALL_ATTENTION_FUNCTIONS) == before


def test_the_ratio_is_the_papers():
    source, target = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([1, 2, 2, 3, 0])
    graph = LayerGraph(source, target, torch.full((5,), 0.2))
    key = torch.tensor([False, True, False, False])
    assert graph.degree_ratio(key) == 2 / 5
    assert graph.without_loops().degree_ratio(key) == 2 / 3
    empty = torch.zeros(0, dtype=torch.int64)
    assert LayerGraph(empty, empty, empty.float()).degree_ratio(key) is None


@pytest.mark.parametrize("name", tiny.ONE_PER_FAMILY)
def test_mode_region_raises_what_lies_in_the_boxes(name, plain):
    model = tiny.make_patched(plain(name), tiny.make_plan(name, "region"))
    inputs = tiny.make_inputs(name)
    names = ("pixel_values", "pixel_attention_mask", "image_grid_thw", "image_sizes", "image_position_ids")
    kwargs = {k: inputs[k] for k in names if k in inputs}
    with tiny.needed(model), torch.no_grad():
        prior = torch.cat(model.model.get_image_features(**kwargs)["sap_prior"])
    size = tiny.TINY[tiny.family_of(name)].size
    rectangles = token_rectangles(model.model, kwargs, [size])[0]
    assert torch.equal(prior > 0, touched(rectangles, [(10, 5, 30, 40)], size))
    assert 0 < int((prior > 0).sum()) < len(prior)


def test_mode_region_refuses_what_it_cannot_place(plain):
    name = "llava_next-mistral"
    model = tiny.make_patched(plain(name), tiny.make_plan(name, "region"))
    inputs = tiny.make_inputs(name)
    for message, boxes, sizes in [
        ("boxes for 2 images but this call has 1", [[(1, 1, 9, 9)]] * 2, [(112, 56)] * 2),
        ("processor saw pictures", [[(1, 1, 9, 9)]], [(56, 112)]),
        ("is no box", [[(1, 1, 0, 9)]], [(112, 56)]),
        ("one of each", [[(1, 1, 9, 9)]], []),
    ]:
        with pytest.raises(LostattnError, match=message), use_regions(model, boxes, sizes):
            model(**inputs)
    with pytest.raises(LostattnError, match="use_regions"):
        model(**inputs)
    with pytest.raises(LostattnError, match="patched model"), use_regions(plain(name), [], []):
        pass


def test_an_answer_is_judged_by_its_words():
    assert is_correct("Yes, there is.", "yes") and is_correct("B) seven", "b") and is_correct("a red bus", "A red bus.")
    assert not is_correct("no", "yes") and not is_correct("yesterday", "yes") and not is_correct("x", "")


def test_groups():
    def sample(correct, rho):
        return Sample(1, "q", "a", "a", correct, rho, [rho, None], [3, 0], 2, 8, 0.0)

    found = summarise([sample(True, 0.2), sample(True, 0.4), sample(False, None)])
    assert found["correct"]["rho"]["mean"] == pytest.approx(0.3)
    assert found["correct"]["rho"]["low"] < 0.3 < found["correct"]["rho"]["high"]
    assert found["correct"]["layers"][1] is None and found["correct"]["key_share_of_tokens"] == 0.25
    assert found["incorrect"]["n"] == found["incorrect"]["without_edges"] == 1 and found["incorrect"]["rho"] is None


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Three demo pictures with the boxes of the digit that is asked for, as files."""
    folder = tmp_path_factory.mktemp("asked")
    draw, rows = digits.Draw(5), []
    for i in range(3):
        scene = digits.draw_scene(draw, 3, 4, "held_out")
        digits.render(scene).save(folder / f"{i}.png")
        labels = [-1 if c == digits.BLANK else int(digits.digit_bank().labels[c]) for c in scene.cells]
        wanted = scene.shown()[0]
        boxes = [[56 * (p % 4), 56 * (p // 4), 56, 56] for p, label in enumerate(labels) if label == wanted]
        question = f"Is there a {wanted}?"
        rows.append({"image": f"{i}.png", "question": question, "answer": "no" if i else "yes", "boxes": boxes})
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "boxes.json").write_text(json.dumps(rows[0]["boxes"]))
    coco = {
        "images": [{"id": 7, "file_name": "0.png", "width": 224, "height": 168}],
        "categories": [{"id": 1, "name": "digit"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": b} for b in rows[0]["boxes"]],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    return folder, rows


def run(*arguments):
    return CliRunner().invoke(main, ["trace", str(DEMO), *map(str, arguments)])


def test_the_command_on_one_picture(asked, tmp_path):
    folder, rows = asked
    one = ("--image", folder / "0.png", "--question", rows[0]["question"], "--max-new-tokens", 2, "--json")
    done = run(*one, "--boxes", folder / "boxes.json", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "a" / "trace.json").read_text())
    names = {"graph.png", "priors.png", "ratio.png", "edges.csv", "tokens.csv", "trace.json"}
    assert {p.name for p in (tmp_path / "a").iterdir()} == names
    assert report["key_tokens"] == 4 * len(rows[0]["boxes"]) and report["visual_tokens"] == 48  # a cell is four tokens
    assert set(report["prior_maps"]) == set(MODES) and not report["missing_maps"]
    assert report["memory"]["largest_chunk_mb"] < 1 and len(report["layers"]) == 8
    lines = (tmp_path / "a" / "edges.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(x["edges"] for x in report["layers"])
    assert sum(line.endswith(",1") for line in lines) == sum(x["key_edges"] for x in report["layers"])
    same = run(*one, "--coco", folder / "coco.json", "--object", "digit", "--out", tmp_path / "b")
    assert json.loads(same.stdout)["layers"] == report["layers"]
    assert "holds a trace already" in run(*one, "--out", tmp_path / "a").output


def test_the_command_on_data(asked, tmp_path):
    folder, _ = asked
    done = run("--data", folder / "data.jsonl", "--out", tmp_path / "c", "--max-new-tokens", 2, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "c" / "trace.json").read_text())
    assert report["correct"]["n"] + report["incorrect"]["n"] == 3 == report["samples"]
    assert (tmp_path / "c" / "comparison.png").stat().st_size > 1000
    assert len((tmp_path / "c" / "samples.csv").read_text().splitlines()) == 4


MISTAKES = [
    (["--question", "x"], "give --image or --video with --question"),
    (["--data", "x", "--image", "y"], "leave --image"),
    (["--image", "0.png", "--question", "x", "--coco", "coco.json"], "belong together"),
    (["--image", "0.png", "--question", "x", "--coco", "coco.json", "--object", "cat"], "it has digit, dog"),
    (["--image", "0.png", "--question", "x", "--coco", "coco.json", "--object", "dog"], "it marks digit"),
    (["--image", "1.png", "--question", "x", "--coco", "coco.json", "--object", "dog"], "knows no picture"),
    (["--image", "0.png", "--question", "x", "--boxes", "outside.json"], "outside of the picture"),
    (["--image", "0.png", "--question", "x", "--boxes", "flat.json"], "is no box"),
    (["--image", "0.png", "--question", "x", "--boxes", "none.json"], "cannot be read"),
    (["--image", "0.png", "--question", "x", "--threshold", "0"], "above 0"),
    (["--data", "bare.jsonl"], "row 1 has no boxes"),
]


@pytest.mark.parametrize("arguments, message", MISTAKES)
def test_mistakes_are_one_sentence(arguments, message, asked, tmp_path, monkeypatch):
    folder, rows = asked
    monkeypatch.chdir(folder)
    Path("outside.json").write_text("[[224, 0, 5, 5]]")
    Path("flat.json").write_text("[[1, 0, 5, 0]]")
    Path("bare.jsonl").write_text(json.dumps({k: v for k, v in rows[0].items() if k != "boxes"}))
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2 and message in done.output, done.output
    assert len(done.output.strip().splitlines()) == 1


def test_without_matplotlib(asked, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("--image", "missing.png", "--question", "x", "--out", tmp_path / "out")
    assert done.exit_code == 2 and "pip install 'lostattn[report]'" in done.output
    assert not (tmp_path / "out").exists()


def test_memory_stays_below_one_layers_weights():
    """Not only the chunks themselves: what the allocator keeps between them counts too."""
    heads, keys = 28, 1500
    q, k = torch.randn(1, heads, keys, 8), torch.randn(1, 4, keys, 8)
    watch = Watch(torch.ones(keys, dtype=torch.bool), 0.1)
    watch.see(0, _weights(torch.nn.Identity(), q, k, k, None, {}), heads, keys)
    whole = 4 * heads * keys**2
    assert watch.largest <= 64 * 2**20 < whole
    assert watch.peaks[0].above < 0.8 * whole
