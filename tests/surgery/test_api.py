"""The public door: patch, plan, load, and a plan on a model in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lostattn
import pytest
import torch
from served import write_checkpoint
from transformers import AutoModelForImageTextToText, AutoProcessor

WISH: dict[str, Any] = {"layers": "0-1", "heads": "all", "scores": "log"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("qwen2_5_vl", tmp_path_factory.mktemp("api") / "base")


def inputs(folder: Path) -> Any:
    from served import pictures, placeholder

    text = f"<|im_start|>user\n{placeholder('qwen2_5_vl')}What is it?<|im_end|>\n"
    return AutoProcessor.from_pretrained(folder)(text=[text], images=pictures(1, 0), return_tensors="pt")


def logits(model: Any, given: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**given).logits
    return found


def test_a_plan_on_a_model_in_memory_is_the_patched_checkpoint_and_leaves_no_trace(base: Path, tmp_path: Path) -> None:
    plan = lostattn.patch(base, tmp_path / "sap", **WISH)
    assert plan == lostattn.plan(base, **WISH) == lostattn.plan(base, lostattn.PatchSpec(**WISH))
    model, given = AutoModelForImageTextToText.from_pretrained(base).eval(), inputs(base)
    before, names = logits(model, given), set(vars(model)) | set(vars(model.model))
    with lostattn.applied(model, plan) as patched:
        assert patched is model
        inside = logits(model, given)
    loaded = lostattn.load(tmp_path / "sap").eval()
    assert torch.equal(inside, logits(loaded, given)) and not torch.equal(inside, before)
    assert torch.equal(logits(model, given), before)
    assert set(vars(model)) | set(vars(model.model)) == names


def test_a_plan_is_taken_off_after_an_error(base: Path) -> None:
    model, given = AutoModelForImageTextToText.from_pretrained(base).eval(), inputs(base)
    before = logits(model, given)
    with pytest.raises(ZeroDivisionError), lostattn.applied(model, lostattn.plan(base, **WISH)):
        _ = 1 / 0
    assert torch.equal(logits(model, given), before)


def test_mistakes(base: Path, tmp_path: Path) -> None:
    with pytest.raises(lostattn.LostattnError, match="'layer' is no option: choose from preset, mode"):
        lostattn.patch(base, tmp_path / "x", layer="1")
    assert not (tmp_path / "x").exists()
    plan = lostattn.plan(base, **WISH)
    lostattn.patch(base, tmp_path / "sap", **WISH)
    with (
        pytest.raises(lostattn.LostattnError, match="load the plain model"),
        lostattn.applied(lostattn.load(tmp_path / "sap"), plan),
    ):
        pass


def test_messages_go_to_a_logger_that_tells_nobody_by_itself(demo: Path, tmp_path: Path) -> None:
    def stderr_of(first: str, name: str) -> str:
        code = f"{first}import lostattn; lostattn.patch({str(demo)!r}, {str(tmp_path / name)!r}, layers=3, heads=(0.0, 0.5))"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr

    assert stderr_of("", "a") == ""
    told = stderr_of("import logging; logging.basicConfig(level=logging.INFO); ", "b")
    assert "INFO:lostattn.surgery.patch:ranking heads on 32 built-in questions; 'lostattn calibrate'" in told
