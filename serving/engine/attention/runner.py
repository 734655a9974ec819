"""Where vLLM's workers tell which request sits in which row of the batch: one hook for each of its two model runners."""

from __future__ import annotations

import functools
from typing import Any

import torch

from ..cache.spans import RequestInfo, visual_spans
from ..internals import AttentionSpec, CPUModelRunner, DefaultModelState, GPUModelRunner, ModelSpecificAttnMetadata
from .state import Batch, scheduled


def hook_first_runner() -> None:
    """Model runner V1 has no hook for models: note the batch around its `_build_attention_metadata`.

    Does nothing for models without a plan; may be called again.
    """
    plain = GPUModelRunner._build_attention_metadata
    if getattr(plain, "_lostattn", False):
        return

    @functools.wraps(plain)
    def build(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self.model, "sap_state"):
            return plain(self, *args, **kwargs)
        with scheduled(Batch(self.input_batch.req_ids, lambda name: _request_info(self.requests[name]))):
            return plain(self, *args, **kwargs)

    build._lostattn = True  # type: ignore[attr-defined]
    GPUModelRunner._build_attention_metadata = build


def hook_seeds_on_cpus() -> None:
    """Let requests with a seed be prefilled in chunks on a CPU.

    Runner V1 draws a token for each chunk, throws it away and turns the request's generator back by an offset, which
    generators of a CPU do not have: it raises, and the engine ends. Here such a row draws from torch's own generator, so
    that its own stays where it was. May be called again.
    """
    plain = GPUModelRunner.sample_tokens
    if getattr(plain, "_lostattn", False):
        return

    @functools.wraps(plain)
    def sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.device.type != "cpu":
            return plain(self, *args, **kwargs)
        rows = self.input_batch.num_reqs
        generators = self.input_batch.generators
        thrown_away = [i for i in list(generators) if i < rows and self.discard_request_mask.np[i]]
        kept = {i: generators.pop(i) for i in thrown_away}
        try:
            return plain(self, *args, **kwargs)
        finally:
            generators.update(kept)

    sample._lostattn = True  # type: ignore[attr-defined]
    GPUModelRunner.sample_tokens = sample


def hook_zeroing_on_cpus() -> None:
    """Let new blocks of all attention layers be zeroed where vLLM asks for it: in models with states of linear attention, whose
    bits may read as NaN in the slots behind a request's last token.

    The GPU runners do so. The CPU runner zeroes groups whose one spec is of full attention, which leaves out layers that keep
    summaries, and all where specs of several sizes share a group. May be called again.
    """
    plain = CPUModelRunner._zero_block_ids
    if getattr(plain, "_lostattn", False):
        return

    @functools.wraps(plain)
    def zero(self: Any, block_ids: list[int]) -> None:
        plain(self, block_ids)
        layers, index = self.compilation_config.static_forward_context, torch.tensor(block_ids, dtype=torch.int64)
        for group in self.kv_cache_config.kv_cache_groups:
            specs = getattr(group.kv_cache_spec, "kv_cache_specs", {})
            for name in group.layer_names:
                if isinstance(specs.get(name, group.kv_cache_spec), AttentionSpec):
                    layers[name].kv_cache.index_fill_(0, index, 0)

    zero._lostattn = True  # type: ignore[attr-defined]
    CPUModelRunner._zero_block_ids = zero


def _request_info(request: Any) -> RequestInfo:
    """What a request's state in the V1 runner says of it."""
    spans = getattr(request, "_lostattn_spans", None)
    if spans is None:
        spans = request._lostattn_spans = visual_spans(request.mm_features)
    return RequestInfo(request.req_id, spans, request.num_prompt_tokens)


class _ForBuilders(ModelSpecificAttnMetadata):
    """The batch for the builders of patched layers, and for no others."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def get_extra_attn_kwargs(self, attn_metadata_builder: Any, num_reqs: int) -> dict[str, Any]:
        """Extra arguments of one builder's `build`."""
        from .native import WrappingBuilder

        return {"batch": self.batch} if isinstance(attn_metadata_builder, WrappingBuilder) else {}


class SapModelState(DefaultModelState):
    """Model runner V2's official hook: the model names this class in `get_model_state_cls`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sap_requests: dict[str, RequestInfo] = {}

    def add_request(self, req_index: int, new_req_data: Any) -> None:
        """Note where the request's images lie and how long its prompt is."""
        super().add_request(req_index, new_req_data)
        name = new_req_data.req_id
        length = len(new_req_data.prompt_token_ids or ())
        self.sap_requests[name] = RequestInfo(name, visual_spans(new_req_data.mm_features), length)

    def remove_request(self, req_id: str) -> None:
        """Forget it."""
        super().remove_request(req_id)
        self.sap_requests.pop(req_id, None)

    def prepare_attn(self, input_batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Hand the batch to the builders."""
        kwargs["model_specific_attn_metadata"] = _ForBuilders(Batch(input_batch.req_ids, self._request))
        return super().prepare_attn(input_batch, *args, **kwargs)

    def _request(self, name: str) -> RequestInfo:
        return self.sap_requests.get(name, RequestInfo("", (), 0))
