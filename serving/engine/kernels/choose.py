"""Which kernels compute patched heads: plain torch, numba on CPUs, or Triton on NVIDIA GPUs."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from ....patches.errors import LostattnError
from ..cache.pages import COMPILED_DTYPES, LANES
from .numba_decode import numba_decode_attention, prepare
from .numba_prefill import compiled_rows, prepare_rows
from .torch_decode import decode_attention
from .torch_prefill import torch_rows
from .triton_kernels import SWITCH, Variant, asked_for, reason_against, reason_against_variant

SLOWER = "so patched layers run in plain torch, which is slower"


def choose_decode(device: torch.device) -> Any:
    """The form for decode rows on the host's path; plain torch, with a notice, where numba does not load."""
    return numba_decode_attention if device.type == "cpu" and _has_numba() else decode_attention


def choose_rows(device: torch.device) -> Any:
    """The form for rows of a prefill, see `torch_rows`."""
    return compiled_rows if device.type == "cpu" and _has_numba() else torch_rows


def prepare_forms(device: torch.device, own: torch.dtype, dtype: torch.dtype, size: int | None, head_size: int) -> None:
    """Compile before the first request, where CPU forms are used.

    Args:
        own: dtype of the model. dtype, size: of the cache and its blocks, in tokens.
    """
    fits = dtype in COMPILED_DTYPES and size is not None and size % LANES == head_size % LANES == 0
    if fits and choose_decode(device) is numba_decode_attention:
        prepare(head_size, size, dtype)
    if choose_rows(device) is compiled_rows and own in COMPILED_DTYPES and head_size % LANES == 0:
        prepare_rows(head_size, own)


def decodes_on_device(device: torch.device, variant: Variant) -> bool:
    """True if Triton kernels take the decode steps of a layer: on NVIDIA GPUs unless LOSTATTN_KERNELS=torch, elsewhere where
    LOSTATTN_KERNELS=triton asks for them. If they cannot, plain torch does, with a notice.

    Raises:
        LostattnError: they are asked for where they cannot run.
    """
    if device.type == "cpu" and not asked_for() or os.environ.get(SWITCH) == "torch":
        return False
    reason = reason_against(device) or reason_against_variant(variant)
    if reason is None:
        return True
    if asked_for():
        raise LostattnError(reason)
    _notice(reason)
    return False


@cache
def _has_numba() -> bool:
    if find_spec("numba") is not None:
        return True
    _notice("numba is not installed")
    return False


@cache
def _notice(why: str) -> None:
    from ..internals import init_logger

    init_logger("vllm.lostattn").warning("lostattn: %s, %s", why, SLOWER)
