"""vLLM's scheduler, telling the managers of this package what they cannot ask for."""

from __future__ import annotations

from typing import Any

from ..internals import AsyncScheduler, Scheduler
from .manager import SummaryManager


class _Telling:
    """Mixed into a scheduler of vLLM: gives `SummaryManager` the requests, and the one whose prefix is looked up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        SummaryManager.requests = self.requests  # type: ignore[attr-defined]
        manager = self.kv_cache_manager  # type: ignore[attr-defined]
        manager.get_computed_blocks = _Looking(manager.get_computed_blocks)
        sap = getattr(self.vllm_config.model_config.hf_config, "sap", {})  # type: ignore[attr-defined]
        if sap.get("queries") == "last":
            coordinator = manager.coordinator
            coordinator.cache_blocks = _PublishingPrompts(coordinator.cache_blocks)


class _Looking:
    """`get_computed_blocks`, noting its request for `find_longest_cache_hit`, which is not given it."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        SummaryManager.looked_up = request
        try:
            return self.wrapped(request, *args, **kwargs)
        finally:
            SummaryManager.looked_up = None


class _PublishingPrompts:
    """`cache_blocks` up to the last prompt row: with rows `last` that row and the answer are computed another way than the
    same tokens are in somebody's longer prompt."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __call__(self, request: Any, num_computed_tokens: int) -> Any:
        return self.wrapped(request, min(num_computed_tokens, request.num_prompt_tokens - 1))


class SapAsyncScheduler(_Telling, AsyncScheduler):
    """The asynchronous scheduler."""


class SapScheduler(_Telling, Scheduler):
    """The synchronous scheduler."""


def make_scheduler(*args: Any, **kwargs: Any) -> Any:
    """The scheduler that vLLM would have chosen, mixed with `_Telling`; vLLM calls it by its name."""
    config = kwargs.get("vllm_config") or args[0]
    return (SapAsyncScheduler if config.scheduler_config.async_scheduling else SapScheduler)(*args, **kwargs)
