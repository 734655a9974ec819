"""Calibration: numbers against attention weights of the same model, interruptions, damaged files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lostattn.patches.errors import LostattnError
from lostattn.patches.family import get_family
from lostattn.serving.data import Example
from lostattn.surgery import calibrate as module
from lostattn.surgery.calibrate import ROWS, calibrate
from lostattn.surgery.calibration import STATISTICS, Calibration
from lostattn.surgery.chat import Chat
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.demo.builtin import builtin_examples
from lostattn.surgery.patch import prepare
from lostattn.surgery.spec import PatchSpec
from PIL import Image
from safetensors.torch import load_file, save_file

FAMILY = get_family("qwen2_5_vl")


@pytest.fixture(scope="module")
def weights(demo: Path, demo_chat: Chat) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of six questions: attention weights (layers, H, S, S) of transformers' own eager mode, and the visual keys (S,)."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(demo, attn_implementation="eager").eval()
    found = []
    for example in builtin_examples(6):
        inputs = demo_chat.encode(example.open(), example.question)
        with torch.no_grad():
            out = model(**inputs, output_attentions=True, use_cache=False)
        visual = inputs["input_ids"][0] == model.config.image_token_id
        found.append((torch.cat(out.attentions).double(), visual))
    return found


def mean(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(values).mean(0)


def behind(visual: torch.Tensor) -> slice:
    """Rows behind the image, as many as calibration reads."""
    first = int(visual.nonzero()[-1]) + 1
    return slice(max(first, len(visual) - ROWS), None)


def test_mass_and_visual_mass(weights: Any, demo_calibration: Calibration) -> None:
    mass = mean([-w[:, :, -1, ~visual].mean(-1) for w, visual in weights])
    assert torch.allclose(torch.tensor(demo_calibration.mass, dtype=torch.float64), mass, atol=1e-6)
    share = mean([w[:, :, behind(visual)][..., visual].sum(-1).mean(-1) for w, visual in weights])
    assert torch.allclose(torch.tensor(demo_calibration.visual_mass, dtype=torch.float64), share, atol=1e-6)
    assert 0 < share.min() < share.max() - 0.1, "heads differ in how much of the image they read"


def test_score_and_level(weights: Any, demo_calibration: Calibration, demo_chat: Chat) -> None:
    """Raw scores are log weights up to a constant per row, which the heads' own scores of one key give."""
    scores, levels = [], []
    for (w, visual), example in zip(weights, builtin_examples(6), strict=True):
        raw_first = first_key_scores(demo_chat, example)  # (layers, H, S): every row's raw score of key 0
        raw = w.log() - w[..., :1].log() + raw_first[..., None]
        scores.append(-raw[:, :, -1, ~visual].mean(-1))
        levels.append(raw[:, :, behind(visual)][..., visual].logsumexp(-1).mean(-1))
    assert torch.allclose(torch.tensor(demo_calibration.score, dtype=torch.float64), mean(scores), atol=1e-3)
    assert torch.allclose(torch.tensor(demo_calibration.level, dtype=torch.float64), mean(levels), atol=1e-3)


def first_key_scores(chat: Chat, example: Example) -> torch.Tensor:
    """q_t . k_0 * scale of every layer, head and row, with transformers' own rotary embedding."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

    found: list[torch.Tensor] = []

    def watch(module: Any, args: Any, kwargs: Any) -> None:
        hidden, rotary = kwargs["hidden_states"], kwargs["position_embeddings"]
        size = hidden.shape[1], -1, module.head_dim
        q = module.q_proj(hidden)[0].view(size).transpose(0, 1)[None]
        k = module.k_proj(hidden)[0].view(size).transpose(0, 1)[None]
        q, k = qwen.apply_rotary_pos_emb(q, k, *rotary)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        found.append((q * k[:, :, :1]).sum(-1)[0].double() * module.head_dim**-0.5)

    layers = chat.model.model.language_model.layers
    hooks = [layer.self_attn.register_forward_pre_hook(watch, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            chat.model(**chat.encode(example.open(), example.question), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found)


def test_the_model_is_as_before(demo_chat: Chat, demo_calibration: Calibration) -> None:
    config = demo_chat.model.config
    assert config.get_text_config()._attn_implementation == config.vision_config._attn_implementation == "sdpa"


class Cut(Exception):
    pass


def run(chat: Chat, partial: Path | None, stop: int = -1, examples: list[Example] | None = None) -> Calibration:
    """Calibrate on five questions, cut after `stop`."""

    def progress(done: int, total: int) -> None:
        if done == stop:
            raise Cut

    return calibrate(chat, FAMILY, builtin_examples(5) if examples is None else examples, "test", partial, progress)


@pytest.mark.parametrize("spoil", ["", '{"mass": [[0.1', "5\n"], ids=["clean", "cut line", "number"])
def test_an_interrupted_run_goes_on(
    demo_chat: Chat, tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(demo_chat, None)
    partial = tmp_path / "c.partial"
    with pytest.raises(Cut):
        run(demo_chat, partial, stop=3)
    kept = partial.read_text()
    assert len(kept.splitlines()) == 4
    partial.write_text(kept + spoil)
    measured = []
    observe = module.observe
    monkeypatch.setattr(module, "observe", lambda *args: measured.append(args[2].row) or observe(*args))
    assert run(demo_chat, partial) == whole and measured == [4, 5]
    assert partial.read_text().startswith(kept)


def test_a_partial_file_of_other_data_is_not_used(demo_chat: Chat, tmp_path: Path) -> None:
    partial = tmp_path / "c.partial"
    other = [replace(e, image=Image.new("RGB", (56, 56), "white")) for e in builtin_examples(5)]
    with pytest.raises(Cut):
        run(demo_chat, partial, stop=3, examples=other)
    assert run(demo_chat, partial) == run(demo_chat, None)
    partial.write_bytes(b"\xff\xfe\x00")
    assert run(demo_chat, partial) == run(demo_chat, None)


def test_examples_that_cannot_be_used(demo_chat: Chat, tmp_path: Path) -> None:
    for image, says in (
        (Image.new("RGB", (1, 500)), "processor cannot use"),
        ("none.png", "row 3: image .* does not exist"),
    ):
        with pytest.raises(LostattnError, match=says):
            run(demo_chat, None, examples=[Example(3, image, "Q", folder=tmp_path)])
    with pytest.raises(LostattnError, match="cannot keep progress in"):
        run(demo_chat, tmp_path / "none" / "c.partial")
    with pytest.raises(LostattnError, match="is patched: give its original"):
        calibrate(Chat(demo_chat.model, demo_chat.processor, True), FAMILY, builtin_examples(1), "x")


@pytest.fixture
def file(tmp_path: Path, demo_calibration: Calibration) -> Path:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(demo_calibration.to_json()))
    return path


def test_file_and_back(file: Path, demo_calibration: Calibration) -> None:
    found = Calibration.read(file)
    assert found.to_json() == demo_calibration.to_json() and found.samples == 6 and "torch" in found.versions
    for name in STATISTICS:
        assert torch.allclose(
            torch.tensor(getattr(found, name)), torch.tensor(getattr(demo_calibration, name)), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mass": None}, "damaged"),
        ({"mass": []}, "damaged"),
        ({"mass": [[0.0] * 4] * 7}, "damaged"),
        ({"mass": 5}, "damaged"),
        ({"level": [[0.0] * 3] * 8}, "damaged"),
        ({"score": [["x"] * 4] * 8}, "damaged"),
        ({"num_heads": [4]}, "damaged"),
        ({"score": [[float("nan")] * 4] * 8}, "damaged"),
        ({"score": [[10**400] * 4] * 8}, "damaged"),
        ({"samples": 0}, "damaged"),
        ({"num_layers": "8"}, "damaged"),
        ({"family": 3}, "damaged"),
        ({"extra": 1}, "misses or invents"),
        ({"format": 2}, "format 1"),
        ({"weights": 3}, "damaged"),
        ({"num_kv_heads": -1}, "damaged"),
        ({"num_kv_heads": "2"}, "damaged"),
        ({"level": [[1e38] * 4] * 8}, "levels beyond 10000"),
        ({"level": [[-1e5] + [0.0] * 3] * 8}, "levels beyond"),
    ],
    ids=str,
)
def test_damaged_files(file: Path, change: dict[str, Any], says: str) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(LostattnError, match=says):
        Calibration.read(file)


@pytest.mark.parametrize(
    ("data", "says"), [(b"", "not JSON"), (b"[]", "format 1"), (b"\xff", "not JSON"), (b"{}", "format 1")]
)
def test_files_that_are_none(file: Path, data: bytes, says: str) -> None:
    file.write_bytes(data)
    with pytest.raises(LostattnError, match=says):
        Calibration.read(file)
    with pytest.raises(LostattnError, match="cannot read the calibration"):
        Calibration.read(file.parent)


WEIGHTS = "model.safetensors"


def test_a_file_is_tied_to_its_weights(file: Path, demo: Path, tmp_path: Path) -> None:
    """The same weights elsewhere and in other shards pass, others are refused, a file that names none is a note."""
    same, cut, other = (Path(shutil.copytree(demo, tmp_path / name)) for name in ("same", "cut", "other"))
    tensors = load_file(cut / WEIGHTS)
    (cut / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({n: tensors[n] for n in part}, cut / shard)
    weight_map = {n: shard for shard, part in shards.items() for n in part}
    (cut / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    save_file(dict(tensors) | {names[0]: tensors[names[0]] * 1.01}, other / WEIGHTS)
    spec = PatchSpec(calibration=str(file))
    assert any("does not say which weights" in note for note in prepare(demo, spec).planned.notes)
    file.write_text(json.dumps({**json.loads(file.read_text()), "weights": resolve_source(demo).identity}))
    for folder in (demo, same, cut):
        assert not any("calibration does" in note for note in prepare(folder, spec).planned.notes)
    with pytest.raises(LostattnError, match="measured on other weights"):
        prepare(other, spec)
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_kv_heads": 4}))
    with pytest.raises(LostattnError, match="4 KV heads, this one has 2"):
        prepare(demo, spec)
