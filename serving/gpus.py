"""GPUs by name, with the figures that their maker publishes; `roofline.py` computes with them."""

from __future__ import annotations

from dataclasses import dataclass

from ..patches.discover import suggestion
from ..patches.errors import LostattnError


@dataclass(frozen=True)
class Gpu:
    """A GPU's peak figures.

    Attributes:
        memory: bytes. bandwidth: of that memory, bytes/s.
        flops: bfloat16 with float32 sums, dense, operations/s.
        link: bytes/s to other GPUs, each way.
        source: the maker's page that says so.
    """

    name: str
    memory: float
    bandwidth: float
    flops: float
    link: float
    source: str


_GB, _TB, _TFLOPS = 1e9, 1e12, 1e12
_PAGES = "https://www.nvidia.com/en-us/data-center/"
# name: GB, TB/s, TFLOP/s, GB/s each way, page. Where a page gives figures with sparsity, half of them.
_FIGURES: dict[str, tuple[float, float, float, float, str]] = {
    "a10": (24, 0.600, 125, 32, "products/a10-gpu/"),
    "a100": (80, 2.039, 312, 300, "a100/"),
    "a100-40gb": (40, 1.555, 312, 300, "a100/"),
    "b200": (180, 7.7, 2250, 900, "hgx/"),
    "h100": (80, 3.35, 989, 450, "h100/"),
    "h100-pcie": (80, 2.0, 756, 300, "h100/"),
    "h200": (141, 4.8, 989, 450, "h200/"),
    "l4": (24, 0.300, 121, 32, "l4/"),
    "l40s": (48, 0.864, 362, 32, "l40s/"),
}
GPUS = {
    name: Gpu(name, gb * _GB, tb * _TB, flops * _TFLOPS, link * _GB, _PAGES + page)
    for name, (gb, tb, flops, link, page) in _FIGURES.items()
}


def get_gpu(name: str) -> Gpu:
    """The GPU of that name, in any case. Raises LostattnError with the list of known ones."""
    result = GPUS.get(name.lower())
    if result is None:
        raise LostattnError(
            f"unknown GPU '{name[:80]}'{suggestion(name.lower(), list(GPUS))}: choose one of {', '.join(GPUS)}"
        )
    return result
