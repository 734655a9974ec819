"""vLLM's configuration of published models, full size: the plugin's hook accepts the families that are served, and refuses
the others with a sentence; no engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm")

from full_size import settle  # noqa: E402
from lostattn.patches.errors import LostattnError  # noqa: E402
from lostattn.serving.engine.versions import UNSERVED, VIDEOS, check_served  # noqa: E402
from lostattn.serving.shape import model_shape  # noqa: E402
from published import find_models  # noqa: E402

pytestmark = pytest.mark.vllm
MODELS = find_models()
FAMILIES = {name: model_shape(model.config).family.name for name, model in MODELS.items()}
WHOLE = {"layers": "all", "heads": "all"}


@pytest.mark.slow  # vLLM looks at every architecture in a process of its own, once
@pytest.mark.parametrize("name", [n for n, family in FAMILIES.items() if family not in UNSERVED])
def test_accepted(name: str, tmp_path: Path) -> None:
    plan, found = settle(MODELS[name].config, tmp_path, WHOLE, max_num_batched_tokens=4096)
    model = found.model_config
    assert model.architecture == f"Sap{MODELS[name].config['architectures'][0]}"
    assert model.get_total_num_kv_heads() == plan.num_kv_heads
    assert model.get_head_size() == model_shape(MODELS[name].config).head_dim
    assert model.hf_text_config.num_hidden_layers == plan.num_layers
    assert found.scheduler_config.scheduler_cls.endswith("make_scheduler")
    limit = model.multimodal_config.limit_per_prompt.get("video")
    assert limit is None if plan.family in VIDEOS else limit.count == 0
    assert found.cache_config.enable_prefix_caching == (0 not in plan.layer_kv_heads.values())


@pytest.mark.parametrize("name", [n for n, family in FAMILIES.items() if family in UNSERVED])
def test_refused(name: str, tmp_path: Path) -> None:
    """lostattn says why; vLLM alone knows no such architecture."""
    with pytest.raises(LostattnError, match=f"family '{FAMILIES[name]}' run in transformers alone: "):
        check_served(FAMILIES[name])
    with pytest.raises(ValueError, match=f"'Sap{MODELS[name].config['architectures'][0]}'. are not supported"):
        settle(MODELS[name].config, tmp_path, WHOLE, max_num_batched_tokens=4096)
