"""The command's side of `bench attention --device cuda`: what can be refused before Triton is imported, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...patches.errors import LostattnError

HEAD = ("phase", "requests", "visual", "us", "unpatched, paged", "SDPA us", "against SDPA", "GB/s", "x bound")


def measure(visual: Sequence[int], requests: Sequence[int], text: int, dtype: str, device: str) -> dict[str, Any]:
    """`bench_device_attention`, with words for the type and the device.

    Raises:
        LostattnError: no GPU, no Triton, or a wrong result.
    """
    import torch

    from ..engine.kernels.triton_kernels import reason_against

    if device == "cuda" and not torch.cuda.is_available():
        raise LostattnError("torch sees no CUDA device: run it on a GPU, or give --device cpu")
    reason = reason_against(torch.device(device))
    if reason is not None:
        raise LostattnError(reason)
    from .attention import bench_device_attention

    return bench_device_attention(visual, requests, text, getattr(torch, dtype), torch.device(device))


def table_rows(found: dict[str, Any]) -> list[list[str]]:
    """Rows for `HEAD`; times in microseconds, ratios of times."""
    return [_cells(row) for row in found["rows"]]


def _cells(row: dict[str, Any]) -> list[str]:
    first = [row["phase"], str(row["requests"]), str(row["visual"])]
    if "skipped" in row:
        return [*first, row["skipped"], "", "", "", "", ""]
    paged = "" if row["paged_us"] is None else f"{row['paged_us']:.1f}"
    ratio, bound = f"{row['us'] / row['sdpa_us']:.2f}x", "" if row["bound"] is None else f"{row['bound']:.2f}"
    return [*first, f"{row['us']:.1f}", paged, f"{row['sdpa_us']:.1f}", ratio, f"{row['gb_s']:.0f}", bound]
