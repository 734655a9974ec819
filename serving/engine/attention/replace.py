"""Replacing the attention of patched decoder layers, and only theirs."""

from __future__ import annotations

from typing import Any

import torch

from ....patches.errors import LostattnError
from ....patches.plan import Plan
from ..cache.spec import SummarySpec, hole_tokens
from ..internals import Attention, get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from ..kernels.choose import decodes_on_device, prepare_forms
from ..kernels.triton_kernels import Variant
from .backend import FittedBackend, MixedBackend, SummaryBackend, wrap_backend
from .roles import Role, Shard, local_layer_plan, local_levels, local_role, local_weights, saves_memory
from .state import PriorStore, SapState


class SummaryAttention(Attention):
    """Attention whose cache keeps summaries of images."""

    def get_kv_cache_spec(self, vllm_config: Any) -> Any:
        """See Attention."""
        return SummarySpec(
            block_size=vllm_config.cache_config.block_size,
            num_kv_heads=self.num_kv_heads,
            head_size=self.head_size,
            head_size_v=self.head_size_v,
            dtype=self.kv_cache_torch_dtype,
            hole_tokens=hole_tokens(vllm_config, vllm_config.cache_config.block_size),
        )


class SplitAttention(torch.nn.Module):
    """A layer some of whose KV heads keep summaries: two attentions side by side.

    Args:
        whole: KV heads of the first; the second has the others. `count` and `group`: all KV heads, query heads of each.
    """

    def __init__(self, summary: Any, rest: Any, whole: tuple[int, ...], count: int, group: int) -> None:
        super().__init__()
        self.summary, self.rest = summary, rest
        others = [g for g in range(count) if g not in whole]
        self.kv = [torch.tensor(whole), torch.tensor(others)]
        self.heads = [(g[:, None] * group + torch.arange(group)).flatten() for g in self.kv]
        self.count, self.group = count, group

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q (n, H D), k and v (n, Hkv D) -> (n, H D)."""
        q = q.unflatten(1, (self.count * self.group, -1))
        k, v = (x.unflatten(1, (self.count, -1)) for x in (k, v))
        out = torch.empty_like(q)
        for attention, heads, kv in zip((self.summary, self.rest), self.heads, self.kv, strict=True):
            heads, kv = heads.to(q.device), kv.to(q.device)
            result = attention(q[:, heads].flatten(1), k[:, kv].flatten(1), v[:, kv].flatten(1))
            out[:, heads] = result.unflatten(1, (len(heads), -1))
        return out.flatten(1)


class AttentionReplacer:
    """Builds the attention of patched layers of one model on one rank."""

    def __init__(self, plan: Plan, state: SapState, vllm_config: Any) -> None:
        self.plan, self.state, self.config = plan, state, vllm_config
        self.store = PriorStore()
        self.rank, self.ranks = get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()

    def replace(self, index: int, attention: Any) -> None:
        """Replace the `attn` of a decoder layer's attention module if the plan patches the layer.

        Raises:
            LostattnError: the layer has a sliding window that requests may outgrow.
        """
        old = attention.attn
        shard = Shard(self.rank, old.num_heads, old.num_kv_heads)
        role = local_role(self.plan, index, shard, self.ranks)
        if index not in self.plan.heads or not role.active:
            return
        longest = self.config.model_config.max_model_len
        if old.sliding_window is not None and old.sliding_window < longest:
            raise LostattnError(
                f"layer {index} has a sliding window of {old.sliding_window}, which patched layers do not have in vLLM: give "
                f"--max-model-len {old.sliding_window} or less, or patch other layers"
            )
        if self.plan.scores == "fitted" and role.scattered:
            raise LostattnError(
                f"scores rule 'fitted' is served for whole KV groups of every rank, and layer {index} has other patched heads on "
                f"one of {self.ranks}: give --tensor-parallel-size 1"
            )
        del self.config.compilation_config.static_forward_context[old.layer_name]
        levels = local_levels(self.plan, index, shard)
        device, size = self.state.prior.device, self.config.cache_config.block_size
        prepare_forms(device, self.config.model_config.dtype, old.kv_cache_torch_dtype, size, old.head_size)
        others = tuple(g for g in range(shard.kv_heads) if g not in role.whole)
        summary = self._summary(index, old, role, levels, shard, bool(others)) if role.whole else None
        rest = self._rest(index, old, role, levels, shard, others) if others else None
        if summary is not None and rest is not None:
            attention.attn = SplitAttention(summary, rest, role.whole, shard.kv_heads, shard.group)
        else:
            attention.attn = summary if summary is not None else rest

    def _summary(
        self, index: int, old: Any, role: Role, levels: torch.Tensor | None, shard: Shard, split: bool
    ) -> SummaryAttention:
        heads, weights = _query_heads(role.whole, shard.group), local_weights(self.plan, index, shard)
        return SummaryAttention(
            **self._common(old, len(role.whole), shard.group, SummaryBackend if weights is None else FittedBackend),
            prefix=old.layer_name + "_summary" if split else old.layer_name,
            **self._sap(index, old, tuple(range(len(heads))), None if levels is None else levels[heads]),
            **({} if weights is None else {"weights": weights[list(role.whole)]}),
        )

    def _rest(
        self, index: int, old: Any, role: Role, levels: torch.Tensor | None, shard: Shard, others: tuple[int, ...]
    ) -> Any:
        heads = _query_heads(others, shard.group)
        patched = tuple(i for i, h in enumerate(heads) if h in role.scattered)
        if not patched:
            return Attention(**self._common(old, len(others), shard.group, None), prefix=old.layer_name)
        level = None if levels is None else levels[heads]
        return Attention(
            **self._common(old, len(others), shard.group, MixedBackend),
            prefix=old.layer_name,
            **self._sap(index, old, patched, level),
            store=self.store,
            layer_plan=local_layer_plan(self.plan, index, patched, len(heads), level),
        )

    def _common(self, old: Any, kv_heads: int, group: int, backend: Any) -> dict[str, Any]:
        return {
            "num_heads": kv_heads * group,
            "head_size": old.head_size,
            "scale": old.impl.scale,
            "num_kv_heads": kv_heads,
            "cache_config": self.config.cache_config,
            "quant_config": self.config.quant_config,
            "attn_backend": self._wrapped(old, backend, group) if backend else old.attn_backend,
        }

    def _wrapped(self, old: Any, backend: Any, group: int) -> Any:
        model, size = self.config.model_config, self.config.cache_config.block_size
        variant = Variant(model.dtype, old.kv_cache_torch_dtype, old.head_size, group, size)
        closed = saves_memory(self.plan) and self.plan.scores != "fitted"
        on_device = closed and decodes_on_device(torch.device(self.state.prior.device), variant)
        return wrap_backend(old.attn_backend, backend, on_device)

    def _sap(self, index: int, old: Any, patched: tuple[int, ...], level: torch.Tensor | None) -> dict[str, Any]:
        return {
            "native": old.attn_backend.get_impl_cls(),
            "state": self.state,
            "plan": self.plan,
            "index": index,
            "patched": patched,
            "level": level,
        }


def _query_heads(kv_heads: tuple[int, ...], group: int) -> list[int]:
    return [g * group + i for g in kv_heads for i in range(group)]
