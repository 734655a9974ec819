"""`patch_checkpoint`: from a wanted to a folder that answers."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lostattn.patches import load_patched, use_prior
from lostattn.patches.errors import LostattnError
from lostattn.surgery import patch_checkpoint
from lostattn.surgery.chat import Chat
from lostattn.surgery.checkpoint.write import read_patched, unpatch, verify
from lostattn.surgery.demo.builtin import builtin_examples
from lostattn.surgery.patch import patch_from_spec
from lostattn.surgery.spec import PatchSpec, read_spec

GOLDEN = Path(__file__).parents[1] / "golden" / "models" / "llava_mha"
QUESTION = builtin_examples(1)[0]


def logits(model: Any, chat: Chat) -> torch.Tensor:
    with torch.no_grad():
        return model(**chat.encode(QUESTION.open(), QUESTION.question), use_cache=False).logits


def test_the_signature_is_a_contract() -> None:
    parameters = inspect.signature(patch_checkpoint).parameters
    wanted = {
        "src": inspect.Parameter.empty,
        "out": inspect.Parameter.empty,
        "preset": "paper",
        "mode": "patch_complexity",
        "layers": None,
        "heads": None,
        "dynamic": False,
        "rank_by": None,
        "calibration": None,
        "scores": None,
        "queries": None,
        "blend": 1.0,
        "seed": 0,
    }
    assert {name: parameters[name].default for name in wanted} == wanted
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name not in ("src", "out"))


@pytest.mark.parametrize(
    "options", [{"layers": []}, {"layers": "none"}, {"heads": {}}, {"blend": 0, "heads": "all"}], ids=str
)
def test_a_plan_that_changes_nothing(options: dict[str, Any], demo: Path, demo_chat: Chat, tmp_path: Path) -> None:
    assert patch_checkpoint(demo, tmp_path / "out", **options).inert
    assert torch.equal(logits(load_patched(tmp_path / "out"), demo_chat), logits(demo_chat.model, demo_chat))


def test_plan_folder_and_card_agree(demo: Path, demo_chat: Chat, tmp_path: Path) -> None:
    plan = patch_checkpoint(
        str(demo),
        str(tmp_path / "out"),
        mode="uniform",
        layers=range(2, 4),
        heads="all",
        scores="log",
        calibration=saved(tmp_path, demo_chat),
    )
    assert plan.heads == {2: (0, 1, 2, 3), 3: (0, 1, 2, 3)} and all(len(plan.levels[x]) == 4 for x in (2, 3))
    found = read_patched(tmp_path / "out")
    model = load_patched(tmp_path / "out")
    assert found.plan == model.sap_plan == plan and verify(tmp_path / "out").ok
    spec = yaml.safe_load(found.manifest.spec or "")
    assert spec == {
        "preset": "paper",
        "mode": "uniform",
        "layers": [2, 3],
        "heads": "all",
        "calibration": "c.json",
        "scores": "log",
    }
    assert "scores: log" in (tmp_path / "out" / "README.md").read_text()
    assert not torch.allclose(logits(model, demo_chat), logits(demo_chat.model, demo_chat), atol=1e-3)
    unpatch(tmp_path / "out", tmp_path / "back")
    for path in demo.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def saved(folder: Path, chat: Chat) -> Path:
    from lostattn.patches.family import get_family
    from lostattn.surgery.calibrate import calibrate

    path = folder / "c.json"
    path.write_text(json.dumps(calibrate(chat, get_family("qwen2_5_vl"), builtin_examples(2), "two").to_json()))
    return path


def test_the_recorded_spec_makes_the_same_plan(demo: Path, demo_chat: Chat, tmp_path: Path) -> None:
    calibration = saved(tmp_path, demo_chat)
    plan = patch_checkpoint(demo, tmp_path / "a", heads=(0.2, 0.8), calibration=calibration, rank_by="score", seed=5)
    (tmp_path / "s.yaml").write_text(read_patched(tmp_path / "a").manifest.spec or "")
    again, _ = patch_from_spec(demo, tmp_path / "b", read_spec(tmp_path / "s.yaml"))
    assert again.planned.plan == plan


def test_a_band_is_ranked_on_the_built_in_set(demo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lostattn")
    plan = patch_checkpoint(demo, tmp_path / "out", layers=3, heads=(0.0, 0.5))
    assert plan.band is None and len(plan.heads[3]) == 2
    told = [r for r in caplog.records if "ranking heads on 32 built-in questions" in r.getMessage()]
    assert [(r.name, r.levelname) for r in told] == [("lostattn.surgery.patch", "INFO")]


def test_an_argument_say_of_earlier_versions_gets_the_lines(demo: Path, tmp_path: Path) -> None:
    said: list[str] = []
    logger = logging.getLogger("lostattn")
    before = (logger.handlers[:], logger.level, logger.propagate)
    with pytest.warns(DeprecationWarning, match="configure the logger 'lostattn'") as caught:
        patch_checkpoint(demo, tmp_path / "out", layers=3, heads=(0.0, 0.5), say=said.append)
    assert [one.filename for one in caught if one.category is DeprecationWarning] == [__file__]
    assert [line.partition(";")[0] for line in said] == ["ranking heads on 32 built-in questions"]
    assert (logger.handlers, logger.level, logger.propagate) == before


def test_reference_stays_dynamic_unless_calibrated(demo: Path, demo_chat: Chat, tmp_path: Path) -> None:
    assert patch_checkpoint(demo, tmp_path / "a", preset="reference", dynamic=False).dynamic
    plan = patch_checkpoint(demo, tmp_path / "b", preset="reference", calibration=saved(tmp_path, demo_chat))
    assert not plan.dynamic and plan.layers == (1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": [8]}, "layers 0-7"),
        ({"layers": [1, "x"]}, "whole numbers"),
        ({"layers": 1j}, "whole numbers"),
        ({"heads": 3}, "a band"),
        ({"heads": {3: [4]}}, "within 0-3"),
        ({"heads": (0.6, 0.3)}, "0 <= low"),
        ({"preset": None}, "preset must be text"),
        ({"mode": "x"}, "unknown mode"),
        ({"blend": "1"}, "blend must be a number"),
        ({"blend": 2, "heads": "all"}, "blend must lie"),
        ({"seed": None}, "seed must be a whole number"),
        ({"options": 3}, "mapping"),
        ({"options": {"x": "y"}, "heads": "all"}, "no option x=y"),
        ({"weights": "x"}, "auto, link"),
        ({"calibration": "none.json"}, "cannot read the calibration"),
        ({"revision": "main"}, "--revision belongs to Hub ids"),
        ({"dynamic": "yes"}, "true or false"),
    ],
    ids=str,
)
def test_mistakes_write_nothing(demo: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    defaults = {} if "calibration" in options else {"heads": "all"}
    with pytest.raises(LostattnError, match=says) as error:
        patch_checkpoint(demo, tmp_path / "deep" / "out", **{**defaults, **options})
    assert list(tmp_path.iterdir()) == [] and "\n" not in str(error.value)


def test_a_calibration_of_another_model(tmp_path: Path, demo: Path, demo_calibration: Any) -> None:
    (tmp_path / "c.json").write_text(json.dumps(demo_calibration.to_json()))
    with pytest.raises(
        LostattnError, match="is of a qwen2_5_vl with 8 layers and 4 heads, the model is a llava with 4 and 4"
    ):
        patch_checkpoint(GOLDEN, tmp_path / "out", layers="0-1", calibration=tmp_path / "c.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"heads": "all", "layers": 1},
        {"heads": {0: [1]}, "mode": "noise"},
        {"dynamic": True, "layers": "0-3"},
        {"preset": "reference", "layers": "2-3"},
    ],
    ids=str,
)
def test_a_folder_of_config_and_weights(options: dict[str, Any], tmp_path: Path) -> None:
    assert sorted(p.name for p in GOLDEN.iterdir()) == ["config.json", "model.safetensors"]
    plan = patch_checkpoint(GOLDEN, tmp_path / "out", **options)
    model = load_patched(tmp_path / "out")
    assert model.sap_plan == plan and plan.pixels is None
    ids = torch.full((1, 12), 5)
    size, token = model.config.vision_config.image_size, model.config.image_token_id
    count = (size // model.config.vision_config.patch_size) ** 2
    ids = torch.cat([ids, torch.full((1, count), token), ids], 1)
    pixels = torch.randn(1, 3, size, size)
    with pytest.raises(LostattnError, match="preprocessor_config.json"):
        model(input_ids=ids, pixel_values=pixels)
    with use_prior(model, [torch.rand(count)]):
        assert model(input_ids=ids, pixel_values=pixels).logits.isfinite().all()


def test_what_then_needs_a_processor_says_so(tmp_path: Path) -> None:
    with pytest.raises(LostattnError, match="llava_mha has no usable processor .* or give --heads all"):
        patch_checkpoint(GOLDEN, tmp_path / "out", layers="0-1")
    assert not (tmp_path / "out").exists()
    with pytest.raises(LostattnError, match="no usable processor"):
        Chat.load(GOLDEN)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("processor_config.json", "{", "processor_config.json is not JSON"),
        (
            "processor_config.json",
            '{"image_processor": {"image_mean": 0.5, "image_std": [1, 1, 1]}}',
            "not usable numbers",
        ),
        ("preprocessor_config.json", '{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}', "not usable numbers"),
        ("preprocessor_config.json", '{"image_mean": null, "image_std": null}', "not usable numbers"),
        ("config.json", '{"model_type": "llava", "text_config": 5}', "cannot be read as llava"),
        ("config.json", '{"model_type": "bert"}', "families are .*llava"),
    ],
)
def test_damaged_sources(tmp_path: Path, name: str, text: str, says: str) -> None:
    shutil.copytree(GOLDEN, tmp_path / "src", copy_function=shutil.copyfile)
    (tmp_path / "src").chmod(0o755)
    (tmp_path / "src" / name).write_text(text)
    with pytest.raises(LostattnError, match=says) as error:
        patch_checkpoint(tmp_path / "src", tmp_path / "out", layers=[1], heads="all")
    assert not (tmp_path / "out").exists() and "\n" not in str(error.value)


def test_destinations(demo: Path, tmp_path: Path, snapshot: Callable[[Path], dict[str, str]]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    patch_checkpoint(demo, out, layers=[])
    first = snapshot(out)
    with pytest.raises(LostattnError, match="exists: choose another destination"):
        patch_checkpoint(demo, out, heads="all")
    assert snapshot(out) == first
    assert patch_checkpoint(demo, out, heads="all", force=True).heads and snapshot(out) != first
    with pytest.raises(LostattnError, match="already patched"):
        patch_checkpoint(out, tmp_path / "twice", heads="all")
    assert PatchSpec(layers=[]).layers == []
