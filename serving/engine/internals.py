"""Every name of vLLM's internals that the plugin uses, in one table; each is imported when it is first asked for.

`from .internals import Attention` works as for any module. A test imports the whole table with every supported vLLM.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

NAMES = {
    "AsyncLLM": "vllm.v1.engine.async_llm:AsyncLLM",
    "AsyncScheduler": "vllm.v1.core.sched.async_scheduler:AsyncScheduler",
    "Attention": "vllm.model_executor.layers.attention:Attention",
    "AttentionBackend": "vllm.v1.attention.backend:AttentionBackend",
    "AttentionBackendEnum": "vllm.v1.attention.backends.registry:AttentionBackendEnum",
    "AttentionCGSupport": "vllm.v1.attention.backend:AttentionCGSupport",
    "AttentionImpl": "vllm.v1.attention.backend:AttentionImpl",
    "AttentionMetadataBuilder": "vllm.v1.attention.backend:AttentionMetadataBuilder",
    "AttentionSpec": "vllm.v1.kv_cache_interface:AttentionSpec",
    "BaseMultiModalProcessor": "vllm.multimodal.processing:BaseMultiModalProcessor",
    "CommonAttentionMetadata": "vllm.v1.attention.backend:CommonAttentionMetadata",
    "DefaultModelState": "vllm.v1.worker.gpu.model_states.default:DefaultModelState",
    "CPUModelRunner": "vllm.v1.worker.cpu_model_runner:CPUModelRunner",
    "GPUModelRunner": "vllm.v1.worker.gpu_model_runner:GPUModelRunner",
    "Glm4vDummyInputsBuilder": "vllm.model_executor.models.glm4_1v:Glm4vDummyInputsBuilder",
    "Glm4vForConditionalGeneration": "vllm.model_executor.models.glm4_1v:Glm4vForConditionalGeneration",
    "Glm4vMoeForConditionalGeneration": "vllm.model_executor.models.glm4_1v:Glm4vMoeForConditionalGeneration",
    "Glm4vMultiModalProcessor": "vllm.model_executor.models.glm4_1v:Glm4vMultiModalProcessor",
    "Glm4vProcessingInfo": "vllm.model_executor.models.glm4_1v:Glm4vProcessingInfo",
    "GlmOcrForConditionalGeneration": "vllm.model_executor.models.glm_ocr:GlmOcrForConditionalGeneration",
    "InternS1DummyInputsBuilder": "vllm.model_executor.models.interns1:InternS1DummyInputsBuilder",
    "InternS1ForConditionalGeneration": "vllm.model_executor.models.interns1:InternS1ForConditionalGeneration",
    "InternS1MultiModalProcessor": "vllm.model_executor.models.interns1:InternS1MultiModalProcessor",
    "InternS1ProcessingInfo": "vllm.model_executor.models.interns1:InternS1ProcessingInfo",
    "Idefics3DummyInputsBuilder": "vllm.model_executor.models.idefics3:Idefics3DummyInputsBuilder",
    "Idefics3ForConditionalGeneration": "vllm.model_executor.models.idefics3:Idefics3ForConditionalGeneration",
    "Idefics3MultiModalProcessor": "vllm.model_executor.models.idefics3:Idefics3MultiModalProcessor",
    "Idefics3ProcessingInfo": "vllm.model_executor.models.idefics3:Idefics3ProcessingInfo",
    "IntermediateTensors": "vllm.sequence:IntermediateTensors",
    "KVCacheManager": "vllm.v1.core.kv_cache_manager:KVCacheManager",
    "KVCacheSpecRegistry": "vllm.v1.kv_cache_spec_registry:KVCacheSpecRegistry",
    "LlavaDummyInputsBuilder": "vllm.model_executor.models.llava:LlavaDummyInputsBuilder",
    "LlavaForConditionalGeneration": "vllm.model_executor.models.llava:LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration": "vllm.model_executor.models.llava_next:LlavaNextForConditionalGeneration",
    "LlavaNextMultiModalProcessor": "vllm.model_executor.models.llava_next:LlavaNextMultiModalProcessor",
    "LlavaNextProcessingInfo": "vllm.model_executor.models.llava_next:LlavaNextProcessingInfo",
    "LlavaOnevisionDummyInputsBuilder": "vllm.model_executor.models.llava_onevision:LlavaOnevisionDummyInputsBuilder",
    "LlavaOnevisionForConditionalGeneration": (
        "vllm.model_executor.models.llava_onevision:LlavaOnevisionForConditionalGeneration"
    ),
    "LlavaOnevisionMultiModalProcessor": "vllm.model_executor.models.llava_onevision:LlavaOnevisionMultiModalProcessor",
    "LlavaOnevisionProcessingInfo": "vllm.model_executor.models.llava_onevision:LlavaOnevisionProcessingInfo",
    "LruKeyReplicatedSenderCache": "vllm.multimodal.cache.lru:LruKeyReplicatedSenderCache",
    "MODELS_CONFIG_MAP": "vllm.model_executor.models.config:MODELS_CONFIG_MAP",
    "MULTIMODAL_REGISTRY": "vllm.multimodal:MULTIMODAL_REGISTRY",
    "Mistral3DummyInputsBuilder": "vllm.model_executor.models.mistral3:Mistral3DummyInputsBuilder",
    "Mistral3ForConditionalGeneration": "vllm.model_executor.models.mistral3:Mistral3ForConditionalGeneration",
    "Mistral3MultiModalProcessor": "vllm.model_executor.models.mistral3:Mistral3MultiModalProcessor",
    "Mistral3ProcessingInfo": "vllm.model_executor.models.mistral3:Mistral3ProcessingInfo",
    "ModelRegistry": "vllm:ModelRegistry",
    "ModelSpecificAttnMetadata": "vllm.v1.worker.gpu.model_states.interface:ModelSpecificAttnMetadata",
    "Qwen2_5_VLDummyInputsBuilder": "vllm.model_executor.models.qwen2_5_vl:Qwen2_5_VLDummyInputsBuilder",
    "Qwen2_5_VLForConditionalGeneration": "vllm.model_executor.models.qwen2_5_vl:Qwen2_5_VLForConditionalGeneration",
    "Qwen2_5_VLMultiModalProcessor": "vllm.model_executor.models.qwen2_5_vl:Qwen2_5_VLMultiModalProcessor",
    "Qwen2_5_VLProcessingInfo": "vllm.model_executor.models.qwen2_5_vl:Qwen2_5_VLProcessingInfo",
    "Qwen2VLDummyInputsBuilder": "vllm.model_executor.models.qwen2_vl:Qwen2VLDummyInputsBuilder",
    "Qwen2VLForConditionalGeneration": "vllm.model_executor.models.qwen2_vl:Qwen2VLForConditionalGeneration",
    "Qwen2VLMultiModalProcessor": "vllm.model_executor.models.qwen2_vl:Qwen2VLMultiModalProcessor",
    "Qwen2VLProcessingInfo": "vllm.model_executor.models.qwen2_vl:Qwen2VLProcessingInfo",
    "Qwen3_5ForConditionalGeneration": "vllm.model_executor.models.qwen3_5:Qwen3_5ForConditionalGeneration",
    "Qwen3_5ProcessingInfo": "vllm.model_executor.models.qwen3_5:Qwen3_5ProcessingInfo",
    "Qwen3_5MoeForConditionalGeneration": "vllm.model_executor.models.qwen3_5:Qwen3_5MoeForConditionalGeneration",
    "Qwen3_5MoeProcessingInfo": "vllm.model_executor.models.qwen3_5:Qwen3_5MoeProcessingInfo",
    "Qwen3VLDummyInputsBuilder": "vllm.model_executor.models.qwen3_vl:Qwen3VLDummyInputsBuilder",
    "Qwen3VLForConditionalGeneration": "vllm.model_executor.models.qwen3_vl:Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration": "vllm.model_executor.models.qwen3_vl_moe:Qwen3VLMoeForConditionalGeneration",
    "Qwen3VLMoeProcessingInfo": "vllm.model_executor.models.qwen3_vl_moe:Qwen3VLMoeProcessingInfo",
    "Qwen3VLMultiModalProcessor": "vllm.model_executor.models.qwen3_vl:Qwen3VLMultiModalProcessor",
    "Qwen3VLProcessingInfo": "vllm.model_executor.models.qwen3_vl:Qwen3VLProcessingInfo",
    "RequestStatus": "vllm.v1.request:RequestStatus",
    "Scheduler": "vllm.v1.core.sched.scheduler:Scheduler",
    "SingleTypeKVCacheManager": "vllm.v1.core.single_type_kv_cache_manager:SingleTypeKVCacheManager",
    "SmolVLMForConditionalGeneration": "vllm.model_executor.models.smolvlm:SmolVLMForConditionalGeneration",
    "SmolVLMProcessingInfo": "vllm.model_executor.models.smolvlm:SmolVLMProcessingInfo",
    "VLLMValidationError": "vllm.exceptions:VLLMValidationError",
    "VerifyAndUpdateConfig": "vllm.model_executor.models.config:VerifyAndUpdateConfig",
    "VideoDummyOptions": "vllm.config.multimodal:VideoDummyOptions",
    "CPUAttentionBackend": "vllm.v1.attention.backends.cpu_attn:CPUAttentionBackend",
    "KVCacheGroupSpec": "vllm.v1.kv_cache_interface:KVCacheGroupSpec",
    "KVCacheLayout": "vllm.v1.kv_cache_layout:KVCacheLayout",
    "UniformTypeKVCacheSpecs": "vllm.v1.kv_cache_interface:UniformTypeKVCacheSpecs",
    "AutoWeightsLoader": "vllm.model_executor.models.utils:AutoWeightsLoader",
    "MMEncoderAttention": "vllm.model_executor.layers.attention:MMEncoderAttention",
    "build_llava_info": "vllm.model_executor.models.llava:_build_llava_or_pixtral_hf_info",
    "build_llava_processor": "vllm.model_executor.models.llava:_build_llava_or_pixtral_hf_processor",
    "cpu_ops": "vllm:_custom_ops",
    "current_platform": "vllm.platforms:current_platform",
    "get_pp_group": "vllm.distributed:get_pp_group",
    "get_tensor_model_parallel_rank": "vllm.distributed:get_tensor_model_parallel_rank",
    "get_tensor_model_parallel_world_size": "vllm.distributed:get_tensor_model_parallel_world_size",
    "get_mm_max_toks_per_item": "vllm.multimodal.encoder_budget:get_mm_max_toks_per_item",
    "renderer": "vllm.renderers:base",
    "resolve_block_hashes": "vllm.v1.core.kv_cache_utils:resolve_block_hashes",
    "engine_core": "vllm.v1.engine:core",
    "grouping": "vllm.v1.core:kv_cache_planning|kv_cache_utils",
    "init_logger": "vllm.logger:init_logger",
    "kv_cache_utils": "vllm.v1.core:kv_cache_utils",
    "register_backend": "vllm.v1.attention.backends.registry:register_backend",
    "token_serving": "vllm.entrypoints.scale_out.token_in_token_out:serving",
    "tensor_model_parallel_all_reduce": "vllm.distributed:tensor_model_parallel_all_reduce",
}


def __getattr__(name: str) -> Any:
    """Import a name of the table and keep it; of modules with `|` between them the first that this vLLM has."""
    if name not in NAMES:
        raise AttributeError(f"{__name__} has no '{name}'")
    module, attributes = NAMES[name].split(":")
    globals()[name] = result = _first(module, attributes.split("|"))
    return result


def _first(module: str, attributes: list[str]) -> Any:
    loaded = importlib.import_module(module)
    for attribute in attributes[:-1]:
        if hasattr(loaded, attribute) or find_spec(f"{module}.{attribute}") is not None:
            return _first(module, [attribute])
    result = getattr(loaded, attributes[-1], None)
    return importlib.import_module(f"{module}.{attributes[-1]}") if result is None else result
