"""vLLM's configuration of the paper's 15 models, full size: the plugin's hook accepts each; no engine starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from full_size import settle  # noqa: E402
from hub_configs import PAPER  # noqa: E402
from lostattn.serving.engine.versions import VIDEOS  # noqa: E402

pytestmark = pytest.mark.vllm
OPTIONS: dict[str, dict[str, Any]] = {
    "whole layers": {"layers": "all", "heads": "all"},
    "reference": {"preset": "reference"},
}


@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", PAPER)
def test_accepted(name: str, spec: dict[str, Any], tmp_path: Path) -> None:
    plan, found = settle(PAPER[name], tmp_path, spec, max_num_batched_tokens=4096)
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
        settle(PAPER["LLaVA-1.5-7B"], tmp_path, OPTIONS["reference"], max_num_batched_tokens=2048)
