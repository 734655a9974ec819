"""What one patched layer has to read, write and multiply, against the unpatched layer: the roofline of docs/kernels.md.

python -m lostattn.serving.benchmark.attention_bound
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

# H100 SXM and H200: published peaks of memory and of dense bfloat16 products
GB_S = {"H100": 3350.0, "H200": 4800.0}
TFLOP_S = 989.0
NUMBER, WIDE = 2, 4  # bytes of bfloat16 and of float32


class Work(NamedTuple):
    """Bytes moved and floating-point operations of one layer."""

    bytes: int
    flops: int

    def us(self, gb_s: float) -> float:
        """Microseconds that the slower of memory and multipliers needs at least."""
        return max(self.bytes / gb_s / 1e3, self.flops / TFLOP_S / 1e6)


def decode_work(visual: int, text: int, heads: int, kv_heads: int, d: int, patched: bool) -> Work:
    """One row of a request: keys and values of what it reads, its summary, its query and output."""
    keys = text if patched else text + visual
    summary = kv_heads * (d + 1) * WIDE if patched and visual else 0
    return Work(2 * keys * kv_heads * d * NUMBER + summary + 2 * heads * d * NUMBER, 4 * keys * heads * d)


def prefill_work(visual: int, text: int, heads: int, kv_heads: int, d: int, patched: bool) -> Work:
    """All rows of a request, its image between two halves of its text: queries and outputs, keys and values read once; patched:
    values of the image read twice, its running means written and read."""
    before, behind, rows = text // 2, text - text // 2, text + visual
    kv, through = kv_heads * d * NUMBER, 2 * rows * heads * d * NUMBER
    if not patched:
        return Work(through + 2 * rows * kv, 4 * heads * d * rows * (rows + 1) // 2)
    seen = before * (before + 1) // 2 + visual * before + behind * before + behind * (behind + 1) // 2
    means = 2 * visual * kv_heads * d * WIDE
    scan = 2 * visual * kv_heads * d * 16  # a tile of 16 rows is one product
    return Work(through + 2 * text * kv + 2 * visual * kv + means, 4 * heads * d * seen + scan)


def lines(visual: Sequence[int] = (256, 1024, 4096, 16384, 32768), text: int = 512) -> Iterable[list[str]]:
    """Head and rows of the table, per request and layer of Qwen2.5-VL-7B (28 heads, 4 KV heads, head size 128)."""
    yield ["phase", "visual", "MB", "unpatched MB", "GFLOP", "unpatched GFLOP", "us on H100", "unpatched us", "ratio"]
    for phase, work in (("decode", decode_work), ("prefill", prefill_work)):
        for count in visual:
            ours, plain = (work(count, text, 28, 4, 128, patched) for patched in (True, False))
            us, plain_us = (x.us(GB_S["H100"]) for x in (ours, plain))
            cells = [f"{x.bytes / 1e6:.2f}" for x in (ours, plain)] + [f"{x.flops / 1e9:.3f}" for x in (ours, plain)]
            yield [phase, str(count), *cells, f"{us:.1f}", f"{plain_us:.1f}", f"{us / plain_us:.3f}"]


def markdown() -> str:
    """The table."""
    head, *rows = lines()
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    print(markdown())
