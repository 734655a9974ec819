"""Every name of vLLM's internals that the plugin uses exists in the installed version, and the plugin registers once."""

from __future__ import annotations

import pytest

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
