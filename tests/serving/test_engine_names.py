"""Every name of vLLM's internals that the plugin uses exists in the installed version, and the plugin registers once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("vllm")

from lostattn.serving import plugin  # noqa: E402
from lostattn.serving.engine import internals  # noqa: E402
from lostattn.serving.engine.registration import served_families  # noqa: E402


@pytest.mark.vllm
@pytest.mark.parametrize("name", sorted(internals.NAMES))
def test_the_name_exists(name: str) -> None:
    assert getattr(internals, name) is not None


@pytest.mark.vllm
def test_register_twice() -> None:
    from vllm import ModelRegistry

    plugin._done.clear()
    plugin.register()
    plugin._done.clear()
    plugin.register()
    assert set(served_families()) <= set(ModelRegistry.get_supported_archs())


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError):
        internals.Nonsense  # noqa: B018


@pytest.mark.vllm
def test_new_blocks_of_every_attention_layer_are_zeroed_on_cpus() -> None:
    """Alone in a group, or with specs of other sizes beside it; states of linear attention are left alone."""
    from lostattn.serving.engine.attention.runner import hook_zeroing_on_cpus
    from lostattn.serving.engine.cache.spec import SummarySpec
    from lostattn.serving.engine.internals import CPUModelRunner

    hook_zeroing_on_cpus()
    spec = SummarySpec(block_size=16, num_kv_heads=1, head_size=8, head_size_v=8, dtype=torch.float32)
    caches = {name: torch.full((4, 1, 16, 16), torch.nan) for name in ("alone", "beside", "state")}
    together = SimpleNamespace(kv_cache_specs={"beside": spec, "state": object()})
    groups = [SimpleNamespace(kv_cache_spec=spec, layer_names=["alone"])]
    groups.append(SimpleNamespace(kv_cache_spec=together, layer_names=["beside", "state"]))
    runner = SimpleNamespace(
        kv_cache_config=SimpleNamespace(kv_cache_groups=groups),
        compilation_config=SimpleNamespace(
            static_forward_context={name: SimpleNamespace(kv_cache=cache) for name, cache in caches.items()}
        ),
    )
    CPUModelRunner._zero_block_ids(runner, [1, 3])
    for name in ("alone", "beside"):
        assert (caches[name][[1, 3]] == 0).all() and caches[name][[0, 2]].isnan().all()
    assert caches["state"].isnan().all()
