"""Time of calls on a GPU: CUDA graphs, CUDA events, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

REPEATS, WARMUPS = 20, 3
LEAST_CALLS = 4


def median_us(calls: Sequence[Callable[[], object]], device: torch.device) -> float:
    """Microseconds of one call: all calls, one behind the other, as one captured graph, median of its replays.

    On a CPU (Triton's interpreter, to try the code) one call by the clock.
    """
    if device.type != "cuda":
        before = time.perf_counter()
        calls[0]()
        return 1e6 * (time.perf_counter() - before)
    calls = [*calls] * -(-LEAST_CALLS // len(calls))
    graph = _captured(calls)
    times = []
    for i in range(WARMUPS + REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        if i >= WARMUPS:
            times.append(1e3 * start.elapsed_time(end) / len(calls))
    return statistics.median(times)


def _captured(calls: Sequence[Callable[[], object]]) -> torch.cuda.CUDAGraph:
    """A graph of the calls, each of which has run before: kernels are compiled and loaded outside of it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def peak_gb_s(device: torch.device) -> float | None:
    """Peak memory bandwidth of a GPU in GB/s by its clock and bus, None if torch does not know them."""
    if device.type != "cuda":
        return None
    result = torch.cuda.get_device_properties(device)
    clock, bus = getattr(result, "memory_clock_rate", 0), getattr(result, "memory_bus_width", 0)
    return 2 * clock * 1e3 * bus / 8 / 1e9 if clock and bus else None
