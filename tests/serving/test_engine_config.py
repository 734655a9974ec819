"""Combinations that are refused when vLLM starts, and what a plan changes in its configuration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

from lostattn.patches.errors import LostattnError  # noqa: E402
from lostattn.patches.family import FAMILIES, get_family  # noqa: E402
from lostattn.patches.mode import MODES, get_mode  # noqa: E402
from lostattn.patches.plan import Band, Plan  # noqa: E402
from lostattn.serving.engine.internals import MODELS_CONFIG_MAP  # noqa: E402
from lostattn.serving.engine.models.config import SapConfig, obstacles  # noqa: E402
from lostattn.serving.engine.versions import VIDEOS, check_videos  # noqa: E402

pytestmark = pytest.mark.vllm


def plan(**changes: Any) -> Plan:
    mode = changes.pop("mode", "uniform")
    values: dict[str, Any] = {
        "family": "qwen2_5_vl",
        "mode": mode,
        "preset": "paper",
        "scores": "raw",
        "queries": "all",
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "heads": {0: (0, 1)},
        "options": get_mode(mode).settle("paper"),
    }
    return Plan(**{**values, **changes})


def config(of: Plan, **changes: Any) -> Any:
    """As much of a VllmConfig as the hook reads; `changes` are dotted names."""
    multimodal = SimpleNamespace(limit_per_prompt={}, video_pruning_rate=None, enable_mm_embeds=False)
    model = SimpleNamespace(
        hf_config=SimpleNamespace(sap=of.to_json()), multimodal_config=multimodal, max_model_len=4096
    )
    found = SimpleNamespace(
        model_config=model,
        speculative_config=None,
        kv_transfer_config=None,
        lora_config=None,
        compilation_config=SimpleNamespace(cudagraph_mm_encoder=True),
        cache_config=SimpleNamespace(cache_dtype="auto", enable_prefix_caching=True),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
            enable_dbo=False,
            ubatch_size=0,
            tensor_parallel_size=1,
        ),
        scheduler_config=SimpleNamespace(
            disable_hybrid_kv_cache_manager=None,
            scheduler_cls=None,
            max_num_batched_tokens=8192,
            enable_chunked_prefill=True,
        ),
    )
    for name, value in changes.items():
        *path, last = name.split("__")
        part = found
        for step in path:
            part = getattr(part, step)
        setattr(part, last, value)
    return found


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"speculative_config": SimpleNamespace(method="eagle")}, "method ngram, or leave out --speculative-config"),
        ({"speculative_config": SimpleNamespace(method="draft_model")}, "by 'draft_model'"),
        ({"kv_transfer_config": object()}, "--kv-transfer-config"),
        ({"lora_config": SimpleNamespace(enable_tower_connector_lora=True)}, "--enable-tower-connector-lora"),
        ({"parallel_config__decode_context_parallel_size": 2}, "context parallelism"),
        ({"parallel_config__enable_dbo": True}, "--enable-dbo"),
        ({"cache_config__cache_dtype": "fp8"}, "read and write it themselves: give --kv-cache-dtype"),
        ({"scheduler_config__disable_hybrid_kv_cache_manager": True}, "--disable-hybrid-kv-cache-manager"),
        ({"model_config__multimodal_config__video_pruning_rate": 0.5}, "--video-pruning-rate"),
        ({"model_config__multimodal_config__enable_mm_embeds": True}, "--enable-mm-embeds"),
        ({"scheduler_config__scheduler_cls": "x.Y"}, "--scheduler-cls"),
    ],
)
def test_refused_with_a_sentence_that_holds_the_mend(change: dict[str, Any], word: str) -> None:
    with pytest.raises(LostattnError, match=word) as caught:
        SapConfig.verify_and_update_config(config(plan(), **change))
    assert "\n" not in str(caught.value)


def test_what_is_exact_is_allowed() -> None:
    allowed = {
        "speculative_config": SimpleNamespace(method="ngram"),
        "lora_config": SimpleNamespace(enable_tower_connector_lora=False),
    }
    assert not list(obstacles(plan(), config(plan(), **allowed)))


def test_heads_ranked_together_need_one_rank() -> None:
    two = {"parallel_config__tensor_parallel_size": 2}
    dynamic = plan(heads={0: ()}, band=Band(0.3, 0.6), queries="last")
    assert not list(obstacles(plan(), config(plan(), **two)))
    for wanted in (dynamic, plan(scores="prob_rescaled")):
        assert "--tensor-parallel-size 1" in " ".join(obstacles(wanted, config(wanted, **two)))


@pytest.mark.parametrize("mode", ["uniform", "vision_attention"])
def test_vision_attention_needs_whole_images_on_every_rank(mode: str) -> None:
    settings = "model_config__multimodal_config__mm_encoder_"
    data = {settings + "tp_mode": "data", "parallel_config__tensor_parallel_size": 2}
    for changes, word in ((data, "--mm-encoder-tp-mode"), ({settings + "attn_backend": "FLASHINFER"}, "FlashInfer")):
        refused = " ".join(obstacles(plan(mode=mode), config(plan(mode=mode), **changes)))
        assert (word in refused) == (mode == "vision_attention")


@pytest.mark.parametrize("mode", sorted(MODES))
def test_modes_that_need_a_caller_are_refused(mode: str) -> None:
    refused = list(obstacles(plan(mode=mode), config(plan(mode=mode))))
    assert bool(refused) == bool(get_mode(mode).needs)


def test_fitted_scores_are_served_for_whole_groups_alone() -> None:
    given: dict[str, Any] = {
        "scores": "fitted",
        "features": ("row",),
        "weights": {0: ((1.0,),)},
        "levels": {0: (0.0, 0.5)},
    }
    whole = plan(**given)
    assert not list(obstacles(whole, config(whole, parallel_config__tensor_parallel_size=2)))
    scattered = {"heads": {0: (0, 2)}, "weights": {0: ((1.0,), (2.0,))}}
    for change in (scattered, {"queries": "after_image"}, {"queries": "last"}, {"blend": 0.5}):
        wanted = plan(**{**given, **change})
        assert "whole KV groups alone" in " ".join(obstacles(wanted, config(wanted)))


def test_what_a_plan_sets() -> None:
    found = config(plan())
    SapConfig.verify_and_update_config(found)
    assert found.scheduler_config.scheduler_cls.endswith("make_scheduler")
    assert not found.compilation_config.cudagraph_mm_encoder
    assert not found.model_config.multimodal_config.limit_per_prompt, "as many pictures and videos as the owner allows"
    assert found.cache_config.enable_prefix_caching
    other = config(plan(family="llava"))
    SapConfig.verify_and_update_config(other)
    assert other.model_config.multimodal_config.limit_per_prompt["video"].count == 0, "no room is kept for videos"


def test_videos_of_families_that_are_not_served() -> None:
    for family in VIDEOS:
        check_videos(family)
        assert get_family(family).videos is not None or get_family(family).tiled
    for family in sorted(set(FAMILIES) - set(VIDEOS)):
        with pytest.raises(LostattnError, match=f"'{family}' are not served in vLLM: send frames"):
            check_videos(family)


def test_states_of_linear_attention_turn_prefix_caching_off_and_keep_vllms_own_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    hook = SimpleNamespace(
        verify_and_update_config=lambda _: calls.append("config"),
        verify_and_update_model_config=lambda _: calls.append("model"),
    )
    monkeypatch.setitem(MODELS_CONFIG_MAP, "Qwen3_5ForConditionalGeneration", hook)
    hybrid = config(plan(family="qwen3_5", layer_kv_heads={0: 0}, heads={1: (0, 1)}))
    SapConfig.verify_and_update_model_config(hybrid.model_config)
    SapConfig.verify_and_update_config(hybrid)
    assert calls == ["model", "config"] and not hybrid.cache_config.enable_prefix_caching


def test_whole_prompts() -> None:
    wanted = plan(scores="prob_rescaled")
    found = config(wanted)
    SapConfig.verify_and_update_config(found)
    assert not found.cache_config.enable_prefix_caching and not found.scheduler_config.enable_chunked_prefill
    with pytest.raises(LostattnError, match="--max-num-batched-tokens 4096"):
        SapConfig.verify_and_update_config(config(wanted, scheduler_config__max_num_batched_tokens=2048))


def test_a_plan_that_patches_nothing_changes_nothing() -> None:
    found = config(plan(heads={}), speculative_config=object())
    SapConfig.verify_and_update_config(found)
    assert found.scheduler_config.scheduler_cls is None and found.compilation_config.cudagraph_mm_encoder
