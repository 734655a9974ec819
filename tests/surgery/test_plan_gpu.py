"""`lostattn plan --gpu`: with weights and from config.json alone, as a table and as JSON; mistakes in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hub_configs import PAPER
from lostattn.serving.byte_model import read_weight_bytes, stored_bytes
from lostattn.serving.roofline import Assumptions
from lostattn.surgery.cli import main

PLAN = ("--mode", "uniform", "--layers", "all", "--heads", "all")
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: object) -> Result:
        found = CliRunner().invoke(main, ["plan", *(str(a) for a in arguments)], prog_name="lostattn")
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
        return found

    return invoke


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., Path]:
    """A folder with config.json alone."""

    def write(name: str = "Qwen2.5-VL-7B", **changes: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps({**PAPER[name], **changes}))
        return tmp_path

    return write


def mistake(found: Result) -> str:
    assert found.exit_code == 2 and found.stdout == ""
    (line,) = found.stderr.splitlines()
    return line


def test_from_the_config_alone(run: Run, bare: Callable[..., Path]) -> None:
    found = run(bare(), *PLAN, "--gpu", "H100", "--visual-tokens", 4096)
    assert found.exit_code == 0 and "Predicted for vLLM on h100" in found.stdout
    for said in ("3.35 TB/s", "80%", "989 TFLOP/s", "5 us", "blocks of 16", "92%", "16.6 GB", "nvidia.com"):
        assert said in found.stdout, said
    assert "no weights" in found.stderr
    rows = [line.split() for line in found.stdout.splitlines() if line.split()[:1] in (["1"], ["8"], ["32"], ["128"])]
    assert len(rows) == 4 and all(row[-1].endswith("x") for row in rows)


@pytest.mark.parametrize("ranks", [1, 2])
def test_json_says_what_it_was_computed_from(run: Run, bare: Callable[..., Path], ranks: int) -> None:
    found = json.loads(run(bare(), *PLAN, "--gpu", "h200", "--tensor-parallel", ranks, "--json").stdout)["serving"]
    assert found["gpu"]["bandwidth"] == 4.8e12 and found["tensor_parallel"] == ranks
    assert found["assumptions"] == asdict(Assumptions())
    assert [row["requests"] for row in found["rows"]] == [1, 8, 32, 128]
    for row in found["rows"]:
        assert row["decode_ratio"] == pytest.approx(row["patched"]["tokens_per_s"] / row["original"]["tokens_per_s"])
        assert row["original"]["tokens_per_s"] == pytest.approx(1e3 * row["requests"] / row["original"]["step_ms"])
    assert found["fit"]["patched"] > 4 * found["fit"]["original"] > 0
    assert found["request"] == {"before": 32, "visual": 1024, "after": 96}


def test_with_weights_their_bytes_count(run: Run, demo: Path) -> None:
    found = json.loads(run(demo, *PLAN, "--gpu", "l4", "--json").stdout)
    assert found["predicted"], "what plan prints without a GPU stays"
    model = found["serving"]["model"]
    assert model["decode_bytes"] == read_weight_bytes(demo, 2) and model["all_bytes"] == stored_bytes(demo, 2)
    counted = 2 * (model["decoder"] + model["head"])
    assert model["decode_bytes"] == counted, "the config describes these weights"


def test_without_a_plan_nothing_differs(run: Run, bare: Callable[..., Path]) -> None:
    found = json.loads(run(bare(), "--layers", "none", "--heads", "all", "--gpu", "a100", "--json").stdout)["serving"]
    assert all(row["decode_ratio"] == row["prefill_ratio"] == 1 for row in found["rows"])
    assert found["fit"]["patched"] == found["fit"]["original"]


def test_what_the_figures_leave_out_is_said(run: Run, bare: Callable[..., Path]) -> None:
    dynamic = run(bare(), "--layers", "1-2", "--heads", "0.3-0.6", "--dynamic", "--gpu", "h100")
    after = run(bare(), "--layers", "1-2", "--heads", "all", "--queries", "after_image", "--gpu", "h100")
    assert all("saves nothing there" in found.stderr for found in (dynamic, after))
    assert "saves nothing" not in run(bare(), *PLAN, "--gpu", "h100").stderr
    small = run(bare("Qwen2.5-VL-32B"), *PLAN, "--gpu", "a10")
    assert "more --tensor-parallel" in small.stderr and "0 unpatched, 0 patched" in small.stdout
    assert "* more than fit" in small.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--gpu", "h1000"), "choose one of a10, a100, a100-40gb, b200, h100, h100-pcie, h200, l4, l40s"),
        (("--tensor-parallel", 2), "--tensor-parallel belongs to --gpu"),
        (("--text-tokens", 2), "--text-tokens belongs to --gpu"),
        (("--visual-tokens", 2), "--visual-tokens belongs to --gpu"),
        (("--gpu", "h100", "--tensor-parallel", 3), "28 heads with 4 KV heads cannot be shared out to 3 GPUs"),
        (("--gpu", "h100", "--revision", "main"), "--revision belongs to Hub ids"),
    ],
)
def test_mistakes(run: Run, bare: Callable[..., Path], arguments: tuple[object, ...], word: str) -> None:
    assert word in mistake(run(bare(), *PLAN, *arguments))


def test_configs_that_do_not_tell_enough(run: Run, bare: Callable[..., Path]) -> None:
    asked = (*PLAN, "--gpu", "h100")
    assert "quantised" in mistake(run(bare(quantization_config={"quant_method": "awq", "bits": 4}), *asked))
    assert "calibrat" in mistake(run(bare(), "--gpu", "h100"))  # the default band has to be ranked
    assert "no model.safetensors" in mistake(run(bare(), *PLAN)), "without --gpu weights are needed"
    folder = bare()
    (folder / "config.json").write_text("[]")
    assert "not a JSON object" in mistake(run(folder, *asked))
    bare(model_type="sap_qwen2_5_vl")
    assert "original" in mistake(run(folder, *asked))
