"""Which form computes single query rows: the seam between plain torch, numba on CPUs and flash attention on NVIDIA GPUs."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from .compiled_query import compiled_query_attention, prepare
from .flash_query import flash_query_attention
from .pages import COMPILED_DTYPES, LANES
from .query_attention import query_attention

SLOWER = "so patched layers decode in plain torch, which is slower"


def choose_query_attention(device: torch.device, dtype: torch.dtype) -> Any:
    """The form for queries on a device; plain torch, with a notice, where neither numba nor vLLM's flash attention loads."""
    if device.type == "cpu":
        return compiled_query_attention if _has_numba() else query_attention
    if device.type == "cuda" and dtype in (torch.float16, torch.bfloat16) and _has_flash():
        return flash_query_attention
    return query_attention


def prepare_queries(device: torch.device, dtype: torch.dtype, size: int | None, head_size: int) -> None:
    """Compile for a cache of this dtype with blocks of `size` tokens before the first request, where the CPU form is used."""
    fits = dtype in COMPILED_DTYPES and size is not None and size % LANES == head_size % LANES == 0
    if fits and choose_query_attention(device, dtype) is compiled_query_attention:
        prepare(head_size, size, dtype)


@cache
def _has_numba() -> bool:
    if find_spec("numba") is not None:
        return True
    _notice("numba is not installed")
    return False


@cache
def _has_flash() -> bool:
    try:
        from .internals import flash_attn_varlen_func
    except (ImportError, AttributeError):
        flash_attn_varlen_func = None
    if flash_attn_varlen_func is None:
        _notice("vLLM's flash attention cannot be loaded")
    return flash_attn_varlen_func is not None


def _notice(why: str) -> None:
    from .internals import init_logger

    init_logger("vllm.lostattn").warning("lostattn: %s, %s", why, SLOWER)
