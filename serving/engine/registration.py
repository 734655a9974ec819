"""What `lostattn.serving.plugin.register` tells vLLM."""

from __future__ import annotations

from typing import Any

from ...patches.family import FAMILIES
from .attention.backend import register_backends
from .attention.runner import hook_first_runner, hook_seeds_on_cpus, hook_zeroing_on_cpus
from .cache.block_record import record_blocks
from .cache.grouping import hook_grouping
from .cache.spec import counting_images, register_specs
from .host_record import record_host_times
from .internals import MODELS_CONFIG_MAP, ModelRegistry, kv_cache_utils
from .models.config import SapConfig
from .versions import serves


def served_families() -> dict[str, str]:
    """Architecture of a patched checkpoint -> `module:Class` that serves it, one file `models/<family>.py` a family."""
    classes = {name: family.model_class.__name__ for name, family in FAMILIES.items() if serves(name)}
    return {kind: f"{__package__}.models.{name}:{kind}" for name, kind in classes.items()}


def register_all() -> None:
    """Models, their config hook, attention backends, KV-cache specs and groups, the V1 runner's hook, records of blocks and
    of host time."""
    register_backends()
    register_specs()
    for architecture, target in served_families().items():
        if architecture not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(architecture, target)
        MODELS_CONFIG_MAP[architecture] = SapConfig
    hook_first_runner()
    hook_seeds_on_cpus()
    hook_zeroing_on_cpus()
    record_blocks()
    hook_grouping()
    record_host_times()
    _count_images_in_capacity()


def _count_images_in_capacity() -> None:
    """vLLM reports the maximum concurrency for requests of max_model_len; let whole groups count images at what they take."""
    plain = kv_cache_utils.get_kv_cache_capacity
    if getattr(plain, "_lostattn", False):
        return

    def capacity(*args: Any, **kwargs: Any) -> Any:
        with counting_images():
            return plain(*args, **kwargs)

    capacity._lostattn = True  # type: ignore[attr-defined]
    kv_cache_utils.get_kv_cache_capacity = capacity
