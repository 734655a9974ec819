"""KV-cache groups of plans that leave layers out, by the installed vLLM's own planner."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("vllm")

from lostattn.serving.engine.cache import grouping as ours  # noqa: E402
from lostattn.serving.engine.cache.spec import SummarySpec, register_specs  # noqa: E402
from lostattn.serving.engine.internals import CPUAttentionBackend, engine_core, grouping  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec  # noqa: E402

pytestmark = pytest.mark.vllm
COMMON: dict[str, Any] = {"head_size": 64, "dtype": torch.float32}


@pytest.fixture(scope="module", autouse=True)
def hooked() -> Iterator[None]:
    register_specs()
    ours.hook_grouping()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "hole_tokens", lambda config, size: size)
        yield


def config(layout: str = "BLHNC", stages: int = 1) -> Any:
    cache = SimpleNamespace(kv_cache_layout=layout, get_resolved_kv_cache_layout=lambda: ours.KVCacheLayout[layout])
    scheduler = SimpleNamespace(disable_hybrid_kv_cache_manager=False)
    parallel = SimpleNamespace(pipeline_parallel_size=stages)
    return SimpleNamespace(
        cache_config=cache, scheduler_config=scheduler, speculative_config=None, parallel_config=parallel
    )


def layers(full: list[int], whole: list[int], size: int = 32) -> dict[str, Any]:
    """Specs of layers by their KV heads: those that keep every token, and those that keep summaries."""
    found = {f"full.{i}": FullAttentionSpec(block_size=size, num_kv_heads=n, **COMMON) for i, n in enumerate(full)}
    return found | {f"whole.{i}": SummarySpec(block_size=size, num_kv_heads=n, **COMMON) for i, n in enumerate(whole)}


PLANS = {
    "the paper's default, 1-27 of 28": ([2], [2] * 27, (15, 1)),
    "every second layer": ([2] * 14, [2] * 14, (1, 1)),
    "the last layers": ([2] * 21, [2] * 7, (1, 3)),
    "a tenth is patched": ([4] * 27, [4] * 3, (1, 8)),
    "half of each layer": ([1] * 28, [1] * 28, (1, 1)),
    "groups scattered": ([2] * 4 + [1] * 6, [2] * 18 + [1] * 6, (3, 1)),
}


@pytest.mark.parametrize("name", PLANS)
def test_one_group_for_each_kind(name: str) -> None:
    full, whole, wanted = PLANS[name]
    specs = layers(full, whole)
    groups = grouping.get_kv_cache_groups(config(), specs)
    assert [g.kv_cache_spec.block_size // 32 for g in groups] == list(wanted)
    assert sorted(n for g in groups for n in g.layer_names) == sorted(specs) and len(groups) == 2


def test_other_models_are_grouped_as_vllm_does() -> None:
    for specs in (layers([2] * 3, []), layers([], [2] * 3), layers([2, 2], [2])):
        plain = grouping.get_kv_cache_groups(config("LBHNC"), specs)
        assert {g.kv_cache_spec.block_size for g in plain} == {32}
    for made in (config("LBHNC"), config("LBHNC", stages=2)):
        assert len(grouping.get_kv_cache_groups(made, layers([2], [2] * 3))) == 4


def test_the_layout_is_chosen_by_the_kinds_of_layers() -> None:
    supported = [[layout.name for layout in CPUAttentionBackend.supported_kv_cache_layouts()]]
    assert supported == [["LBHNC", "BLHNC"]]

    def resolved(specs: dict[str, Any], names: list[list[str]], stages: int = 1) -> str:
        cache = SimpleNamespace(kv_cache_layout=None)
        parallel = SimpleNamespace(pipeline_parallel_size=stages)
        whole = SimpleNamespace(cache_config=cache, kv_transfer_config=None, parallel_config=parallel)
        return str(engine_core.resolve_kv_cache_layout(whole, names, tuple(specs.values())).name)

    assert resolved(layers([2], [2] * 3), supported) == "BLHNC"
    assert resolved(layers([2] * 3, []), supported) == resolved(layers([], [2] * 3), supported) == "LBHNC"
    assert resolved(layers([2], [2] * 3), [["LBHNC"]]) == "LBHNC", "where nothing else is supported"
    assert resolved(layers([2], [2] * 3), supported, stages=2) == "LBHNC", "a stage may lack a kind of layers"


counts = st.lists(st.integers(1, 8), min_size=1, max_size=40)


@given(counts, counts, st.sampled_from([16, 32, 128, 1024]))
def test_blocks_are_shared_without_waste(full: list[int], whole: list[int], size: int) -> None:
    specs = layers(full, whole, size)
    found = ours.kinds(specs)
    assert found is not None
    chosen = ours.packing(found)
    assert min(chosen.factors) == min(chosen.parts) == 1
    assert max(chosen.factors) * size <= max(ours.LARGEST, size)
    groups = grouping.get_kv_cache_groups(config(), specs)
    assert sorted(n for g in groups for n in g.layer_names) == sorted(specs) and all(g.layer_names for g in groups)


@pytest.mark.parametrize(("size", "groups"), [(16, 2), (32, 2), (64, 3), (128, 5)])
@pytest.mark.parametrize("left", [1, 2])
def test_memory_is_near_that_of_a_group_for_each_layer(size: int, groups: int, left: int) -> None:
    """The paper's default leaves one layer of 28; vLLM's CPU build has blocks of 128 tokens."""
    specs = layers([2] * left, [2] * (28 - left), size)
    found = ours.kinds(specs)
    assert found is not None
    chosen = ours.packing(found)
    made = grouping.get_kv_cache_groups(config(), specs)
    assert len(made) <= groups
    page = specs["whole.0"].page_size_bytes
    apart = page * left * -(-2304 // size) + page * (28 - left) * (-(-256 // size) + 1)
    block = max(sum(s.page_size_bytes for s in g.kv_cache_spec.kv_cache_specs.values()) for g in made)
    assert ours.request_bytes(block, size, chosen) <= 1.3 * apart


def test_layers_lie_side_by_side_in_a_block() -> None:
    """The bytes of a block of each group by vLLM's own planner: no two layers of a group share any."""
    from lostattn.serving.engine.internals import kv_cache_utils

    planner = kv_cache_utils if hasattr(kv_cache_utils, "get_kv_cache_config_from_groups") else grouping
    build = getattr(planner, "get_kv_cache_config_from_groups", None)
    if build is None:
        pytest.skip("this vLLM plans the cache in another way")
    groups = grouping.get_kv_cache_groups(config(), layers([1, 2], [2] * 5))
    made = config()
    made.attention_config = SimpleNamespace(hisparse_config=None)
    made.cache_config.num_gpu_blocks_override = None
    made.cache_config.prefix_cache_retention_interval = None
    planned = build(made, groups, 2**24)
    for group in groups:
        taken: list[tuple[int, int]] = []
        for tensor in planned.kv_cache_tensors:
            for number, name in enumerate(tensor.layers):
                if name in group.layer_names:
                    spec = group.kv_cache_spec.kv_cache_specs[name]
                    start = tensor.offset + number * tensor.layer_stride
                    taken.append((start, start + spec.page_size_bytes))
                    assert start + spec.page_size_bytes <= tensor.block_stride
        taken.sort()
        assert len(taken) == len(group.layer_names)
        assert all(a[1] <= b[0] for a, b in zip(taken, taken[1:], strict=False))
