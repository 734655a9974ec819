"""Compiling the Triton kernels for a GPU that is not there: the launchers run as ever, on tensors of any device, and instead of
starting a kernel its compiled form is kept. What a kernel takes of a multiprocessor is read from its machine code."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ....patches.errors import LostattnError
from .triton_common import INTERPRETED

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
SHARED = {80: 164, 90: 228, 100: 228}  # KiB of shared memory of a multiprocessor
REGISTERS, WARPS, BLOCKS = 65536, 64, 32  # of a multiprocessor


class Resources(NamedTuple):
    """Of one compiled kernel: registers a thread, bytes of local memory (spills, arrays) and loads and stores of it, bytes of
    shared memory, and the share of a multiprocessor's warps that can be resident, in percent."""

    registers: int
    stack: int
    spills: int
    shared: int
    occupancy: int


class _NoDriver:
    """Answers what Triton asks before it compiles."""

    def __init__(self, arch: int) -> None:
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return int(self.target.arch)

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling(arch: int) -> Iterator[list[Any]]:
    """Within it, launches compile for a compute capability (80, 90, 100) and add what they compiled to the list."""
    if INTERPRETED:
        raise LostattnError("kernels cannot be compiled under Triton's interpreter: unset TRITON_INTERPRET")
    results: list[Any] = []
    run, before = JITFunction.run, driver._active

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        results.append(run(self, *arguments, grid=grid, warmup=True, **options))
        return results[-1]

    JITFunction.run = compile_only
    driver.set_active(_NoDriver(arch))
    try:
        yield results
    finally:
        JITFunction.run = run
        driver._active = before


def resources(kernel: Any) -> Resources:
    """Of a compiled kernel."""
    target, warps = kernel.metadata.target.arch, kernel.metadata.num_warps
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, code = (_tool("cuobjdump", option, file.name) for option in ("-res-usage", "-sass"))
    results = {name: int(count) for name, count in re.findall(r"(REG|STACK):(\d+)", usage)}
    spills, shared = len(re.findall(r"\b(?:LDL|STL)\b", code)), kernel.metadata.shared
    return Resources(
        results["REG"], results["STACK"], spills, shared, _occupancy(target, results["REG"], shared, warps)
    )


def _tool(*command: str) -> str:
    return subprocess.run([TOOLS / command[0], *command[1:]], capture_output=True, text=True, check=True).stdout


def _occupancy(arch: int, registers: int, shared: int, warps: int) -> int:
    """Registers are given out 256 a warp at a time; the system takes 1 KiB of shared memory a block."""
    by_registers = REGISTERS // (-(-registers * 32 // 256) * 256 * warps)
    by_shared = SHARED[arch] * 1024 // (shared + 1024)
    return 100 * warps * min(by_registers, by_shared, WARPS // warps, BLOCKS) // WARPS


def paged(dtype: torch.dtype, kv_heads: int, size: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values (2, Hkv, size, D) as vLLM lays them out: a slot is a row of all heads' keys and values."""
    k, v = torch.zeros(2, size, kv_heads, 2 * d, dtype=dtype).transpose(1, 2).split(d, -1)
    return k, v
