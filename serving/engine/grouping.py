"""KV-cache groups of a plan that leaves layers out: one for each kind of layer, however many layers a kind has.

vLLM gives every group as many layers as the smallest kind has, because its groups share blocks of one size: a plan that leaves
one layer of 28 unpatched would make 28 groups, each with a block table and attention metadata of its own in every step. In a
layout whose blocks hold all layers side by side the groups may differ; here each kind is one group, and the kind with fewer
bytes a token gets larger blocks, so that a block is full in both. Prefix hits then end at multiples of the larger block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .cache_spec import SummarySpec
from .capacity import hole_tokens
from .internals import (
    CPUAttentionBackend,
    KVCacheGroupSpec,
    KVCacheLayout,
    UniformTypeKVCacheSpecs,
    engine_core,
    grouping,
)

LARGEST = 512  # tokens of a block: a prefix that is found again ends at a multiple of it
TEXT, VISUAL = 256, 2048  # tokens of the request whose memory decides
Specs = dict[str, Any]


def hook_grouping() -> None:
    """Wrap vLLM's choice of layout and of groups, and let its CPU kernels take blocks that hold all layers."""
    if getattr(grouping.get_kv_cache_groups, "_lostattn", False):
        return
    grouping.get_kv_cache_groups = _grouping(grouping.get_kv_cache_groups)
    engine_core.resolve_kv_cache_layout = _resolving(engine_core.resolve_kv_cache_layout)
    declared = CPUAttentionBackend.supported_kv_cache_layouts()
    if declared == (KVCacheLayout.LBHNC,):  # its kernels find blocks by strides, and read the same interior
        both = (KVCacheLayout.LBHNC, KVCacheLayout.BLHNC)
        CPUAttentionBackend.supported_kv_cache_layouts = classmethod(lambda cls: both)


def _grouping(plain: Any) -> Any:
    def get_kv_cache_groups(vllm_config: Any, kv_cache_spec: Specs) -> list[Any]:
        found = kinds(kv_cache_spec)
        layout = KVCacheLayout[vllm_config.cache_config.kv_cache_layout or KVCacheLayout.LBHNC.name]
        if found is None or not layout.is_block_outermost or _staged(vllm_config):
            return plain(vllm_config, kv_cache_spec)
        groups = []
        for kind, factor in zip(found, factors(found), strict=True):
            specs = {name: _enlarged(spec, factor, vllm_config) for name, spec in kind.items()}
            groups.append(KVCacheGroupSpec(list(specs), UniformTypeKVCacheSpecs.from_specs(specs)))
        return groups

    get_kv_cache_groups._lostattn = True  # type: ignore[attr-defined]
    return get_kv_cache_groups


def _resolving(plain: Any) -> Any:
    def resolve_kv_cache_layout(
        vllm_config: Any, supported_layouts: Sequence[Sequence[str]], kv_cache_specs: Iterable[Any] | None = None
    ) -> Any:
        specs = tuple(kv_cache_specs or ())
        if (
            not _staged(vllm_config)
            and any(isinstance(s, SummarySpec) for s in specs)
            and not all(isinstance(s, SummarySpec) for s in specs)
        ):
            supported_layouts = [block_outermost(names) or list(names) for names in supported_layouts]
        return plain(vllm_config, supported_layouts, specs)

    return resolve_kv_cache_layout


def _staged(vllm_config: Any) -> bool:
    """Whether pipeline stages share the layers out: a stage may lack a kind, which vLLM does not plan for in such groups."""
    return bool(vllm_config.parallel_config.pipeline_parallel_size > 1)


def block_outermost(names: Iterable[str]) -> list[str]:
    """Those layouts whose blocks hold all layers."""
    return [name for name in names if KVCacheLayout[name].is_block_outermost]


def kinds(specs: Mapping[str, Any]) -> tuple[Specs, Specs] | None:
    """Layers that keep every token, and layers that keep summaries; None unless there are both and no others."""
    summaries = {name: spec for name, spec in specs.items() if isinstance(spec, SummarySpec)}
    others = {name: spec for name, spec in specs.items() if name not in summaries}
    if not summaries or not others or not UniformTypeKVCacheSpecs.is_uniform_type(others):
        return None
    return others, summaries


def factors(found: tuple[Specs, Specs]) -> tuple[int, int]:
    """How many blocks of the usual size one block of each kind holds: one of them is 1.

    Taken is what a request of `TEXT` and `VISUAL` tokens needs least memory with, and among equals the smallest.
    """
    widths = [sum(spec.page_size_bytes for spec in kind.values()) for kind in found]
    size = next(iter(found[0].values())).block_size
    large = widths.index(min(widths))
    most = max(1, min(-(-max(widths) // min(widths)), LARGEST // size))
    pairs = [(f, 1) if large == 0 else (1, f) for f in range(1, most + 1)]
    return min(pairs, key=lambda pair: request_bytes(widths, size, pair))


def request_bytes(widths: Sequence[int], size: int, pair: tuple[int, int]) -> int:
    """Bytes of the blocks that the request holds.

    Args:
        widths: bytes of `size` tokens in all layers of each kind.
    """
    block = max(width * factor for width, factor in zip(widths, pair, strict=True))
    every = -(-(TEXT + VISUAL) // (size * pair[0]))
    text = -(-TEXT // (size * pair[1])) + 1  # and the block with the image's last token
    return (every + text) * block


def _enlarged(spec: Any, factor: int, vllm_config: Any) -> Any:
    if factor == 1:
        return spec
    size = spec.block_size * factor
    more = {"hole_tokens": hole_tokens(vllm_config, size)} if isinstance(spec, SummarySpec) else {}
    return replace(spec, block_size=size, **more)
