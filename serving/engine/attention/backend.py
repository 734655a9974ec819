"""Attention backends of patched layers: they wrap the backend that vLLM chose, which computes all that is not patched."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

from ..internals import (
    AttentionBackend,
    AttentionBackendEnum,
    register_backend,
)

SUMMARY, MIXED = "LOSTATTN_SUMMARY", "LOSTATTN_MIXED"


class _Wrapping(AttentionBackend):
    """Mixed in front of a native backend's class."""

    native: ClassVar[Any]
    forward_includes_kv_cache_update = True  # the patched layers write summaries, or nothing, for visual tokens


class SummaryBackend(_Wrapping):
    """Layers that keep summaries of images instead of keys and values."""

    @staticmethod
    def get_name() -> str:
        """Name in vLLM's registry."""
        return SUMMARY

    @staticmethod
    def get_impl_cls() -> Any:
        """See AttentionBackend."""
        from .summary import SummaryImpl

        return SummaryImpl


class FittedBackend(SummaryBackend):
    """The same where KV heads score visual tokens otherwise."""

    @staticmethod
    def get_impl_cls() -> Any:
        """See AttentionBackend."""
        from .fitted import FittedImpl

        return FittedImpl


class MixedBackend(_Wrapping):
    """Layers with the full cache, some of whose heads are patched."""

    @staticmethod
    def get_name() -> str:
        """Name in vLLM's registry."""
        return MIXED

    @staticmethod
    def get_impl_cls() -> Any:
        """See AttentionBackend."""
        from .mixed import MixedImpl

        return MixedImpl


@lru_cache
def wrap_backend(native: Any, base: Any, on_device: bool = False) -> Any:
    """The class of `base` (SummaryBackend, FittedBackend or MixedBackend) around a native backend.

    Args:
        on_device: decode steps by the Triton kernels, see `device`.
    """

    def get_builder_cls() -> Any:
        builder = _classes(base, on_device)[0]
        return type(builder.__name__, (builder,), {"native_builder": native.get_builder_cls()})

    cached = lru_cache(get_builder_cls)
    body = {
        "native": native,
        "get_builder_cls": staticmethod(cached),
        "get_impl_cls": staticmethod(lambda: _classes(base, on_device)[1]),
    }
    return type(f"{base.__name__}Of{native.__name__}", (base, native), body)


def _classes(base: Any, on_device: bool) -> tuple[Any, Any]:
    """Builder and implementation."""
    if on_device:
        from . import device

        if base is SummaryBackend:
            return device.DeviceSummaryBuilder, device.DeviceSummaryImpl
        return device.DeviceMixedBuilder, device.DeviceMixedImpl
    from . import fitted, metadata, mixed, summary

    if base is FittedBackend:
        return metadata.SummaryBuilder, fitted.FittedImpl
    if base is SummaryBackend:
        return metadata.SummaryBuilder, summary.SummaryImpl
    return metadata.MixedBuilder, mixed.MixedImpl


def register_backends() -> None:
    """Give both backends a name in vLLM's registry; a second registration would be an error."""
    for name, path in ((SUMMARY, "SummaryBackend"), (MIXED, "MixedBackend")):
        if name not in AttentionBackendEnum.__members__:
            register_backend(name, f"{__name__}.{path}")
