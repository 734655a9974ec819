"""vLLM's configuration of the paper's 15 models, full size: the plugin's hook accepts each; no engine starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from hub_configs import PAPER  # noqa: E402
from lostattn.patches.plan import Plan  # noqa: E402
from lostattn.serving.engine.versions import VIDEOS  # noqa: E402
from lostattn.serving.plugin import register  # noqa: E402
from lostattn.surgery.checkpoint.write import patched_config  # noqa: E402
from lostattn.surgery.planner import make_plan  # noqa: E402
from lostattn.surgery.spec import PatchSpec  # noqa: E402
from served import tokenizer  # noqa: E402

pytestmark = pytest.mark.vllm
WISHES: dict[str, dict[str, Any]] = {
    "whole layers": {"layers": "all", "heads": "all"},
    "reference": {"preset": "reference"},
}


def settle(name: str, folder: Path, wishes: dict[str, Any], **options: Any) -> tuple[Plan, Any]:
    """Plan and vLLM's settled configuration."""
    from vllm.engine.arg_utils import EngineArgs

    register()
    plan = make_plan(PatchSpec(**wishes), PAPER[name], None).plan
    (folder / "config.json").write_text(json.dumps(patched_config(PAPER[name], plan)))
    tokenizer().save_pretrained(folder)
    args = EngineArgs(model=str(folder), skip_tokenizer_init=True, max_model_len=4096, enforce_eager=True, **options)
    return plan, args.create_engine_config()


@pytest.mark.parametrize("wishes", WISHES.values(), ids=WISHES)
@pytest.mark.parametrize("name", PAPER)
def test_accepted(name: str, wishes: dict[str, Any], tmp_path: Path) -> None:
    plan, found = settle(name, tmp_path, wishes, max_num_batched_tokens=4096)
    model = found.model_config
    assert model.architecture == f"Sap{PAPER[name]['architectures'][0]}"
    assert model.get_total_num_kv_heads() == plan.num_kv_heads and model.get_head_size() == 128
    assert model.hf_text_config.num_hidden_layers == plan.num_layers
    assert found.scheduler_config.scheduler_cls.endswith("make_scheduler")
    limit = model.multimodal_config.limit_per_prompt.get("video")
    assert limit is None if plan.family in VIDEOS else limit.count == 0
    assert found.cache_config.enable_prefix_caching == (plan.scores != "prob_rescaled")  # which needs whole prompts


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--max-num-batched-tokens 4096"):
        settle("LLaVA-1.5-7B", tmp_path, WISHES["reference"], max_num_batched_tokens=2048)
