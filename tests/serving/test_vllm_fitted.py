"""Scores rule `fitted` in vLLM: summaries with one log mass per KV head, against transformers' eager form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")

from engines import check, drive, oracle  # noqa: E402
from lostattn.patches.errors import LostattnError  # noqa: E402
from lostattn.patches.plan import FEATURES, Plan  # noqa: E402
from lostattn.serving.engine.attention.roles import serves_fitted  # noqa: E402
from lostattn.surgery.checkpoint.source import resolve_source  # noqa: E402
from lostattn.surgery.checkpoint.write import write_patched  # noqa: E402
from lostattn.surgery.planner import make_plan  # noqa: E402
from lostattn.surgery.spec import PatchSpec  # noqa: E402
from served import placeholder, write_checkpoint  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
HEADS = {
    "every": {0: (0, 1, 2, 3), 1: (0, 1, 2, 3), 2: (0, 1, 2, 3)},
    "some": {0: (0, 1), 2: (0, 1, 2, 3)},  # one layer of two halves, one left out
}


def ask(images: int, seed: int, question: str, tokens: int = 8) -> dict[str, Any]:
    text = f"<|im_start|>user\n{placeholder('qwen2_5_vl') * images}{question}<|im_end|>\n<|im_start|>assistant\n"
    return {"prompt": text, "pictures": [images, seed], "tokens": tokens}


ASKED = [
    ask(2, 0, "What is this?"),
    ask(1, 1, "How many?"),
    ask(0, 0, "Hello."),
    ask(1, 1, "And what colours are these?"),
]


def fitted(config: dict[str, Any], folder: Path, heads: dict[int, tuple[int, ...]]) -> Plan:
    """A plan with other weights in every KV head, as `calibrate --fit` would give."""
    empty = make_plan(PatchSpec(preset="efficient", layers="none"), config, folder).plan
    g = torch.Generator().manual_seed(3)
    size = empty.num_heads // empty.num_kv_heads
    weights = {
        layer: tuple(tuple(torch.randn(len(FEATURES), generator=g).tolist()) for _ in {h // size for h in found})
        for layer, found in heads.items()
    }
    levels = {layer: tuple(0.5 * h - 1 for h in found) for layer, found in heads.items()}
    values = {
        k: v for k, v in vars(empty).items() if k not in ("digest", "scores", "heads", "features", "weights", "levels")
    }
    return Plan(**values, scores="fitted", heads=heads, features=FEATURES, weights=weights, levels=levels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen2.5-VL under both plans."""
    root = tmp_path_factory.mktemp("fitted")
    write_checkpoint("qwen2_5_vl", root / "base")
    source = resolve_source(root / "base")
    for name, heads in HEADS.items():
        write_patched(source, fitted(dict(source.config), source.path, heads), root / name, card="# card\n")
    return root


def agree(found: dict[str, Any], folder: Path, where: str) -> None:
    for rows in found["waves"]:
        for request, row in zip(ASKED, rows, strict=True):
            check(row, oracle(folder, request), f"{where} {request['prompt'][-60:]!r}")


def test_small_chunks_batches_and_prefix_hits(folders: Path, tmp_path: Path) -> None:
    """Chunks end inside images; the second wave finds its prefixes, the summaries of images among them."""
    options = {"max_num_batched_tokens": 128, "max_model_len": 512}
    cases = [{"folder": str(folders / name), "waves": [ASKED, ASKED], "options": options} for name in HEADS]
    for name, found in zip(HEADS, drive(cases, tmp_path), strict=True):
        agree(found, folders / name, name)
        assert any(row["cached"] for row in found["waves"][1])
        assert "SummarySpec" in {group[0] for group in found["seen"]["groups"]}, "visual tokens keep one summary"
    base = oracle(folders / "base", ASKED[0])
    assert oracle(folders / "every", ASKED[0]).logprobs != pytest.approx(base.logprobs, abs=1e-2)


@pytest.mark.parametrize(
    "options",
    [{"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2, "enforce_eager": False}],
    ids=["tensor", "pipeline"],
)
def test_two_ranks(folders: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    case = {"folder": str(folders / "every"), "waves": [ASKED], "options": options}
    (found,) = drive([case], tmp_path, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"})
    agree(found, folders / "every", str(options))


def test_what_is_refused(folders: Path) -> None:
    """Scattered heads, other rows and blends have no summaries to keep."""
    plan = Plan.from_json(json.loads((folders / "every" / "config.json").read_text())["sap"])
    raw = plan.to_json()
    assert serves_fitted(plan)
    for change in ({"queries": "after_image"}, {"blend": 0.5}):
        assert not serves_fitted(Plan.from_json(raw | change))
    two = {"heads": {"0": [0, 2]}, "weights": {"0": raw["weights"]["0"]}, "levels": {"0": [0.0, 1.0]}}
    assert not serves_fitted(Plan.from_json(raw | two))
    with pytest.raises(LostattnError, match="exactly the layers"):
        Plan.from_json(raw | {"weights": {}})
