"""How long scheduling and building attention metadata take in every step, written to a file by vLLM's engine.

Works for plain and patched models and for both model runners; nothing is done unless the environment names a file. Of several
ranks the first one writes.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from ..host_times import VARIABLE
from .cache.block_record import append_line
from .internals import DefaultModelState, GPUModelRunner, Scheduler

Counts = tuple[int, int]  # requests and tokens of a step


def record_host_times() -> None:
    """Note the times around vLLM's scheduler and runners, if the environment asks; may be called again.

    To be called behind whatever else wraps the same functions, so that its time counts.
    """
    path = os.environ.get(VARIABLE)
    if not path or getattr(Scheduler.schedule, "_lostattn_timed", False):
        return
    Scheduler.schedule = _timed(Scheduler.schedule, "schedule", path, lambda given, out: _scheduled(out))
    GPUModelRunner._build_attention_metadata = _timed(
        GPUModelRunner._build_attention_metadata, "metadata", path, lambda given, out: _built(given)
    )
    DefaultModelState.prepare_attn = _timed(
        DefaultModelState.prepare_attn, "metadata", path, lambda given, out: _prepared(given)
    )


def _timed(plain: Any, what: str, path: str, counts: Callable[[dict[str, Any], Any], Counts | None]) -> Any:
    """`plain`, noting the time of every call for whose arguments and result there are counts."""
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        out = plain(*args, **kwargs)
        seconds = time.perf_counter() - start
        result = counts(signature.bind(*args, **kwargs).arguments, out)
        if result is not None and _is_first():
            row = {"what": what, "ms": round(1e3 * seconds, 4), "requests": result[0], "tokens": result[1]}
            append_line(path, row)
        return out

    call._lostattn_timed = True  # type: ignore[attr-defined]
    return call


def _scheduled(out: Any) -> Counts | None:
    return (len(out.num_scheduled_tokens), out.total_num_scheduled_tokens) if out.num_scheduled_tokens else None


def _built(given: dict[str, Any]) -> Counts | None:
    return None if given.get("for_cudagraph_capture") else (given["num_reqs"], given["num_tokens"])


def _prepared(given: dict[str, Any]) -> Counts | None:
    batch = given["input_batch"]
    return None if given.get("for_capture") else (batch.num_reqs, batch.num_tokens)


def _is_first() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank())
