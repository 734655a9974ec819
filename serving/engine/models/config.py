"""What a patched checkpoint changes in vLLM's configuration, and which combinations are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....patches.errors import LostattnError
from ....patches.family import get_family
from ....patches.mode import get_mode
from ....patches.plan import Plan
from ..attention.roles import needs_whole_prompt, saves_memory, serves_fitted
from ..internals import MODELS_CONFIG_MAP, VerifyAndUpdateConfig, VideoDummyOptions, init_logger
from ..versions import VIDEOS

logger = init_logger("vllm.lostattn")
SPECULATION = "ngram"  # drafts come from the request's own text, and need no cache


class SapConfig(VerifyAndUpdateConfig):
    """vLLM's per-architecture hook; the one that it has for the unpatched architecture runs first."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """What vLLM sets for the unpatched architecture."""
        if (plain := _plain_hook(Plan.from_json(getattr(model_config.hf_config, "sap", None)))) is not None:
            plain.verify_and_update_model_config(model_config)

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Set what serving the plan needs.

        Raises:
            LostattnError: an option that cannot be combined with the plan, with the mend.
        """
        plan = Plan.from_json(getattr(vllm_config.model_config.hf_config, "sap", None))
        if (plain := _plain_hook(plan)) is not None:
            plain.verify_and_update_config(vllm_config)
        if plan.inert:
            return
        for sentence in obstacles(plan, vllm_config):
            raise LostattnError(sentence)
        vllm_config.compilation_config.cudagraph_mm_encoder = False  # its graphs leave out where the prior is made
        multimodal = vllm_config.model_config.multimodal_config
        if plan.family not in VIDEOS:
            multimodal.limit_per_prompt["video"] = VideoDummyOptions(count=0)  # no room is kept for them
        scheduler = vllm_config.scheduler_config
        if 0 in plan.layer_kv_heads.values() and vllm_config.cache_config.enable_prefix_caching:
            logger.info(
                "lostattn: prefix caching is off, it was not tried with states of linear attention beside summaries"
            )
            vllm_config.cache_config.enable_prefix_caching = False
        if needs_whole_prompt(plan):
            _compute_prompts_whole(vllm_config)
        if scheduler.scheduler_cls is None:
            scheduler.scheduler_cls = "lostattn.serving.engine.cache.scheduler.make_scheduler"


def _plain_hook(plan: Plan) -> Any:
    """vLLM's own hook for the unpatched architecture, or None."""
    return MODELS_CONFIG_MAP.get(get_family(plan.family).plain_class.__name__)


def obstacles(plan: Plan, config: Any) -> Iterator[str]:
    """Why this plan cannot be served with these options, one sentence each."""
    parallel, cache = config.parallel_config, config.cache_config
    if get_mode(plan.mode).needs:
        yield f"mode '{plan.mode}' takes its prior from the caller, which no server request can give: serve another mode"
    if plan.scores == "fitted" and not serves_fitted(plan):
        yield (
            "vLLM serves scores rule 'fitted' for whole KV groups alone, with queries all and blend 1: run the model in "
            "transformers, or patch with --scores log"
        )
    if config.speculative_config is not None and config.speculative_config.method != SPECULATION:
        yield (
            f"speculative decoding by '{config.speculative_config.method}' is not supported with a plan, which keeps an image's "
            f"summary where a drafter's slots would lie: use method {SPECULATION}, or leave out --speculative-config"
        )
    if config.kv_transfer_config is not None:
        yield (
            "KV connectors are not supported with a plan: they move blocks of keys, and images have a prior or a summary in "
            "their place: leave out --kv-transfer-config"
        )
    if getattr(config.lora_config, "enable_tower_connector_lora", False):
        yield "adapters of the vision tower are not supported with a plan: leave out --enable-tower-connector-lora"
    if parallel.decode_context_parallel_size > 1 or getattr(parallel, "prefill_context_parallel_size", 1) > 1:
        yield "context parallelism is not supported with a plan: use tensor or pipeline parallelism"
    if getattr(parallel, "enable_dbo", False) or getattr(parallel, "ubatch_size", 0) > 1:
        yield "dual batch overlap is not supported with a plan: leave out --enable-dbo"
    if parallel.tensor_parallel_size > 1 and (plan.dynamic or plan.scores == "prob_rescaled"):
        yield (
            "this plan ranks or measures all heads of a layer together, which tensor parallelism tears apart: use "
            "--tensor-parallel-size 1, or a plan with static heads (preset paper or efficient)"
        )
    if str(cache.cache_dtype) not in ("auto", "float16", "bfloat16", "float32"):
        yield (
            f"a KV cache of type '{cache.cache_dtype}' is not supported with a plan, whose layers read and write it themselves: "
            "give --kv-cache-dtype bfloat16"
        )
    if config.scheduler_config.disable_hybrid_kv_cache_manager and saves_memory(plan):
        yield "whole groups need vLLM's hybrid KV-cache manager: leave out --disable-hybrid-kv-cache-manager"
    multimodal = config.model_config.multimodal_config
    if getattr(multimodal, "video_pruning_rate", None):
        yield "pruning of a video's tokens is not supported with a plan: leave out --video-pruning-rate"
    if getattr(multimodal, "enable_mm_embeds", False):
        yield "image embeddings carry no pixels for the prior: leave out --enable-mm-embeds"
    if get_mode(plan.mode).listens:
        if "FLASHINFER" in str(getattr(multimodal, "mm_encoder_attn_backend", None)):
            yield f"mode '{plan.mode}' cannot read FlashInfer's image borders: leave out --mm-encoder-attn-backend"
        if getattr(multimodal, "mm_encoder_tp_mode", None) == "data" and parallel.tensor_parallel_size > 1:
            yield f"mode '{plan.mode}' needs every image on all ranks: leave out --mm-encoder-tp-mode data"
    if config.scheduler_config.scheduler_cls is not None:
        yield "a scheduler of your own cannot be combined with a plan: leave out --scheduler-cls"


def _compute_prompts_whole(config: Any) -> None:
    scheduler = config.scheduler_config
    longest, budget = config.model_config.max_model_len, scheduler.max_num_batched_tokens
    if budget < longest:
        raise LostattnError(
            f"this plan needs every prompt in one piece: give --max-num-batched-tokens {longest} (max_model_len; it is "
            f"{budget}), or a smaller --max-model-len"
        )
    if config.cache_config.enable_prefix_caching or scheduler.enable_chunked_prefill:
        logger.info("lostattn: prefix caching and chunked prefill are off, this plan needs every prompt in one piece")
    config.cache_config.enable_prefix_caching = False
    scheduler.enable_chunked_prefill = False
