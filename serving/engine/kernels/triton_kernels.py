"""Which Triton kernels can be used: on what devices, for what layers, and whether the user asked for them. Imports no Triton."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import NamedTuple

import torch

SWITCH, NAME = "LOSTATTN_KERNELS", "triton"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FP8_DTYPES = (torch.float8_e4m3fn, torch.uint8)
HEAD_SIZES, GROUPS = (32, 256), (1, 16)  # least and most
OLDEST = (8, 0)  # compute capability
LEAST_TRITON = (3, 9)  # named tuples as arguments; older ones were not tried


class Variant(NamedTuple):
    """What a layer asks of the kernels: types of queries and of the cache, head size, query heads of a KV head, block size."""

    dtype: torch.dtype
    cache_dtype: torch.dtype
    head_size: int
    group: int
    block_size: int


def asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """True if LOSTATTN_KERNELS=triton, the one switch: also on a CPU, where the kernels need TRITON_INTERPRET=1."""
    return environment.get(SWITCH) == NAME


def available(device: torch.device) -> bool:
    """True if the kernels run on a device; `reason_against` says why not."""
    return reason_against(device) is None


def reason_against(device: torch.device) -> str | None:
    """Why the kernels do not run on a device, as a sentence with the mend, or None."""
    if importlib.util.find_spec("triton") is None:
        return f"Triton is not installed: install it ('pip install triton'), or unset {SWITCH}"
    import triton

    if tuple(int(x) for x in triton.__version__.split(".")[:2]) < LEAST_TRITON:
        needed = ".".join(map(str, LEAST_TRITON))
        return f"Triton {triton.__version__} is older than {needed}, the oldest that was tried: update it, or unset {SWITCH}"
    interpreted = triton.knobs.runtime.interpret
    if device.type == "cpu":
        return None if interpreted else f"Triton's kernels need a GPU: unset {SWITCH}, or test with TRITON_INTERPRET=1"
    if device.type != "cuda" or torch.version.hip:
        return f"Triton's kernels were made for NVIDIA GPUs, not for this {device.type} device: unset {SWITCH}"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0: unset {SWITCH}"
    return None


def reason_against_variant(variant: Variant) -> str | None:
    """Why the kernels do not serve a layer, as a sentence with the mend, or None."""
    dtype, cache, d, group, size = variant
    if dtype not in DTYPES:
        return f"Triton's kernels take float32, float16 and bfloat16, not {dtype}: give another --dtype"
    if cache not in (*DTYPES, *FP8_DTYPES):
        return f"Triton's kernels read no KV cache of {cache}: give --kv-cache-dtype bfloat16, float16 or fp8_e4m3"
    if not HEAD_SIZES[0] <= d <= HEAD_SIZES[1] or d % 8:
        return f"Triton's kernels take head sizes of 32 to 256 that 8 divides, not {d}: unset {SWITCH}"
    if not GROUPS[0] <= group <= GROUPS[1]:
        return f"Triton's kernels take up to {GROUPS[1]} query heads a KV head, not {group}: unset {SWITCH}"
    if size < 1:
        return f"a block of {size} slots holds no token: give another --block-size"
    return None


def programs_of(device: torch.device) -> int:
    """Programs that a launch should have: two for each multiprocessor; 8 in the interpreter."""
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8
