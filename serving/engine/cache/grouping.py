"""KV-cache groups of a plan that leaves layers out: few, however many layers it leaves.

vLLM gives every group as many layers as the smallest kind has, because its groups share blocks of one size: a plan that leaves
one layer of 28 unpatched would make 28 groups, each with a block table and attention metadata of its own in every step. In a
layout whose blocks hold all layers side by side the groups may differ; here each kind of layer is one group, and the kind with
fewer bytes a token gets larger blocks, so that a block is full in both. Prefix hits then end at multiples of the larger block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..internals import (
    CPUAttentionBackend,
    KVCacheGroupSpec,
    KVCacheLayout,
    UniformTypeKVCacheSpecs,
    engine_core,
    grouping,
)
from .spec import SummarySpec, hole_tokens

LARGEST = 512  # tokens of a block: a prefix that is found again ends at a multiple of it
TEXT, VISUAL = 256, 2048  # tokens of the request whose memory decides
SLACK = 1.25  # a request may hold so many times the bytes that more groups would need
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
        by_kind = kinds(kv_cache_spec)
        layout = KVCacheLayout[vllm_config.cache_config.kv_cache_layout or KVCacheLayout.LBHNC.name]
        if by_kind is None or not layout.is_block_outermost or _staged(vllm_config):
            return plain(vllm_config, kv_cache_spec)
        chosen, groups = packing(by_kind), []
        for kind, factor, parts in zip(by_kind, chosen.factors, chosen.parts, strict=True):
            specs = {name: _enlarged(spec, factor, vllm_config) for name, spec in kind.items()}
            for part in divided(list(specs), parts):
                same = UniformTypeKVCacheSpecs.from_specs({name: specs[name] for name in part})
                groups.append(KVCacheGroupSpec(part, same))
        return groups

    get_kv_cache_groups._lostattn = True  # type: ignore[attr-defined]
    return get_kv_cache_groups


def _resolving(plain: Any) -> Any:
    def resolve_kv_cache_layout(
        vllm_config: Any, supported_layouts: Sequence[Sequence[str]], kv_cache_specs: Iterable[Any] | None = None
    ) -> Any:
        specs = tuple(kv_cache_specs or ())
        if not _staged(vllm_config) and kinds({str(i): spec for i, spec in enumerate(specs)}) is not None:
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


@dataclass(frozen=True)
class Packing:
    """How two kinds of layers share blocks.

    Attributes:
        factors: how many blocks of the usual size one block of each kind holds; one of them is 1.
        parts: into how many groups each kind is divided; one of them is 1.
    """

    factors: tuple[int, int]
    parts: tuple[int, int]


def packing(found: tuple[Specs, Specs]) -> Packing:
    """The fewest groups with which a request of `TEXT` and `VISUAL` tokens needs at most `SLACK` times the least memory.

    The kind with fewer bytes a token gets larger blocks, of at most `LARGEST` tokens. Where those are not enough (the usual block
    is large already), the other kind is divided, if its layers are alike.
    """
    sizes = [[spec.page_size_bytes for spec in kind.values()] for kind in found]
    wide = 0 if sum(sizes[0]) >= sum(sizes[1]) else 1
    size, alike = next(iter(found[0].values())).block_size, len(set(sizes[wide])) == 1
    options = []
    for parts in range(1, len(sizes[wide]) + 1 if alike else 2):
        part, small = (
            -(-len(sizes[wide]) // parts) * sizes[wide][0] if alike else sum(sizes[wide]),
            sum(sizes[1 - wide]),
        )
        for factor in range(1, max(1, min(-(-part // small), LARGEST // size)) + 1):
            pairs = ((1, factor), (parts, 1)) if wide == 0 else ((factor, 1), (1, parts))
            options.append((Packing(*pairs), request_bytes(max(part, small * factor), size, Packing(*pairs))))
    least = min(memory for _, memory in options)
    fewest = min(max(p.parts) for p, memory in options if memory <= SLACK * least)
    return min((o for o in options if max(o[0].parts) == fewest), key=lambda o: o[1])[0]


def request_bytes(block: int, size: int, chosen: Packing) -> int:
    """Bytes that the request holds in blocks of so many bytes; `size` is that of a usual block in tokens."""
    every = -(-(TEXT + VISUAL) // (size * chosen.factors[0])) * chosen.parts[0]
    text = (-(-TEXT // (size * chosen.factors[1])) + 1) * chosen.parts[1]  # and the block with the image's last token
    return (every + text) * block


def divided(names: list[str], parts: int) -> list[list[str]]:
    """The names in order, in so many runs of nearly one length; no run is empty."""
    most = -(-len(names) // parts)
    return [names[start : start + most] for start in range(0, len(names), most)]


def _enlarged(spec: Any, factor: int, vllm_config: Any) -> Any:
    if factor == 1:
        return spec
    size = spec.block_size * factor
    more = {"hole_tokens": hole_tokens(vllm_config, size)} if isinstance(spec, SummarySpec) else {}
    return replace(spec, block_size=size, **more)
