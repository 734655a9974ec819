"""What every variant of the Triton kernels takes of a GPU, compiled ahead of time: `docs/kernels.json` and the table of
`docs/kernels.md`.

    python -m lostattn.serving.engine.kernels.triton_resources docs/kernels.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

from .triton_common import PagedCache
from .triton_compile import Resources, compiling, paged, resources
from .triton_decode import DecodeScratch, decode
from .triton_prefill import prefill
from .triton_prepare import Spans, Text, prepare, prepare_rows
from .triton_slots import SummaryTable
from .triton_summaries import RunningSums, running_sums
from .triton_whole_sums import WholeScratch, whole_sums
from .triton_write import EXTEND, KEEP, SKIP, write_rows

ARCHITECTURES = (80, 90, 100)
KV_HEADS = 4
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp8": torch.float8_e4m3fn}
WORSE = 1.05  # registers and shared memory above this share of the table's are worse


class Variant(NamedTuple):
    """Kernel, types of queries and cache, head size, query heads of a KV head, block size, and splits (decode, whole) or rows
    (prefill); mixed: summaries from a table, and only some heads."""

    kernel: str
    dtype: str = "bf16"
    cache: str = "bf16"
    d: int = 128
    group: int = 7
    size: int = 16
    parts: int = 32
    mixed: bool = False

    def __str__(self) -> str:
        kind = " mixed" if self.mixed else ""
        types = self.dtype if self.dtype == self.cache else f"{self.dtype}/{self.cache}"
        words = {
            "prefill": f", {self.parts} rows",
            "decode": f", {self.parts} splits",
            "whole": f", {self.parts} splits",
        }
        return f"{self.kernel}{kind} {types} D{self.d} G{self.group} block {self.size}{words.get(self.kernel, '')}"


def variants() -> list[Variant]:
    """All that are tabled."""
    results = [Variant("decode", d=d) for d in (32, 64, 80, 96, 112, 128, 256)]
    results += [
        Variant("decode", parts=1),
        Variant("decode", size=432),
        Variant("decode", size=128),
        Variant("decode", mixed=True),
    ]
    results += [Variant("decode", group=group) for group in (1, 16)]
    results += [Variant("decode", "fp16", "fp16"), *(Variant("decode", "fp32", "fp32", d) for d in (64, 128, 256))]
    results += [Variant("decode", "bf16", "fp8", d) for d in (64, 128, 256)]
    results += [Variant("prefill", d=d, parts=2048) for d in (32, 64, 80, 128, 256)]
    results += [Variant("prefill", parts=rows) for rows in (2, 4, 8)]
    results += [Variant("prefill", parts=2048, mixed=True), Variant("prefill", "bf16", "fp8", parts=2048)]
    results += [Variant("prefill", "fp32", "fp32", parts=rows) for rows in (2, 2048)]
    results += [Variant("running", cache=cache, d=d) for cache in ("bf16", "fp8") for d in (64, 128, 256)]
    results += [Variant("running", "fp32", "fp32")]
    results += [Variant("whole", cache=cache, d=d) for cache in ("bf16", "fp8") for d in (64, 128, 256)]
    for kernel in ("write", "write-extend", "write-keep"):
        results += [Variant(kernel, "fp32" if cache == "fp32" else "bf16", cache) for cache in ("bf16", "fp32", "fp8")]
        results += [Variant(kernel, d=d) for d in (32, 256)]
    return [*results, Variant("prepare")]


def compiled(variant: Variant, arch: int) -> Iterator[tuple[str, Resources]]:
    """Names and resources of the kernels that a launcher starts."""
    with compiling(arch) as kernels:
        _LAUNCH[variant.kernel](variant)
    for kernel in kernels:
        yield kernel.name, resources(kernel)


def rows_of(chosen: Iterable[Variant], architectures: Iterable[int]) -> list[dict[str, Any]]:
    """Rows of the table."""
    return [
        {"arch": arch, "variant": str(variant), "kernel": name, **found._asdict()}
        for variant in chosen
        for arch in architectures
        for name, found in compiled(variant, arch)
    ]


def worse(rows: Iterable[dict[str, Any]], known: Iterable[dict[str, Any]]) -> list[str]:
    """What takes more than the table says, or is not in it, or spills: sentences."""
    before = {(row["arch"], row["variant"], row["kernel"]): row for row in known}
    results = []
    for row in rows:
        key = row["arch"], row["variant"], row["kernel"]
        if row["spills"] or row["stack"]:
            results.append(f"{key} spills registers")
        elif key not in before:
            results.append(f"{key} is not in the table")
        else:
            for name in ("registers", "shared"):
                if row[name] > WORSE * before[key][name]:
                    results.append(f"{key} takes {row[name]} {name} instead of {before[key][name]}")
    return results


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """A line per variant and kernel: registers, KiB of shared memory and occupancy for each architecture."""
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        cell = f"{row['registers']} / {row['shared'] / 1024:.0f} / {row['occupancy']} %"
        lines.setdefault((row["variant"], row["kernel"]), []).append(cell)
    head = ["variant", "kernel", *(f"sm {arch}" for arch in ARCHITECTURES)]
    table = [
        head,
        ["---"] * len(head),
        *([variant, f"`{kernel}`", *cells] for (variant, kernel), cells in lines.items()),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _cache(variant: Variant) -> PagedCache:
    k, v = paged(TYPES[variant.cache], KV_HEADS, variant.size, variant.d)
    scale = torch.ones(1) if variant.cache == "fp8" else None
    return PagedCache(k, v, scale, scale)


def _table(variant: Variant) -> SummaryTable:
    return SummaryTable(torch.zeros(4), torch.zeros(4, KV_HEADS, variant.d), torch.zeros(1, dtype=torch.int32))


def _ints(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int32)


def _wanted(variant: Variant) -> torch.Tensor | None:
    return torch.ones(KV_HEADS * variant.group, dtype=torch.bool) if variant.mixed else None


def _decode(variant: Variant) -> None:
    heads = KV_HEADS * variant.group
    q = torch.zeros(1, heads, variant.d, dtype=TYPES[variant.dtype])
    scratch = DecodeScratch.of(1, heads, KV_HEADS, variant.d, variant.parts, "cpu")
    text, table = Text.of(1, 4, variant.size, "cpu"), _table(variant) if variant.mixed else None
    decode(torch.empty_like(q), q, _cache(variant), text, scratch, 1.0, torch.zeros(heads), _wanted(variant), table)


def _prefill(variant: Variant) -> None:
    heads, rows = KV_HEADS * variant.group, variant.parts
    q = torch.zeros(rows, heads, variant.d, dtype=TYPES[variant.dtype])
    sums, text = RunningSums.of(rows, 1, KV_HEADS, variant.d, "cpu"), Text.of(1, 4, variant.size, "cpu")
    where = _ints(2), _ints(1), sums, _ints(rows)
    prefill(torch.empty_like(q), q, _cache(variant), text, *where, 1.0, torch.zeros(heads), _wanted(variant))


def _running(variant: Variant) -> None:
    v = torch.zeros(64, KV_HEADS, variant.d, dtype=TYPES[variant.dtype])
    sums = RunningSums.of(64, 1, KV_HEADS, variant.d, "cpu")
    running_sums(sums, torch.zeros(64), v, _ints(2), _cache(variant), _ints(1).long(), _ints(64).long())


def _whole(variant: Variant) -> None:
    scratch = WholeScratch.of(1, KV_HEADS, variant.d, variant.parts, "cpu")
    whole_sums(_table(variant), _cache(variant), _ints(4)[None], _ints(1), torch.zeros(64), scratch)


def _write(variant: Variant) -> None:
    visual = {"write": SKIP, "write-extend": EXTEND, "write-keep": KEEP}[variant.kernel]
    k = torch.zeros(8, KV_HEADS, variant.d, dtype=TYPES[variant.dtype])
    table = _table(variant) if visual == KEEP else None
    write_rows(_cache(variant), k, k, torch.zeros(8), _ints(8).long(), visual, _ints(8).long(), torch.zeros(64), table)


def _prepare(variant: Variant) -> None:
    spans = Spans(_ints(2), _ints(1), _ints(1))
    prepare(Text.of(1, 4, variant.size, "cpu"), _ints(4)[None], _ints(1), spans, KV_HEADS, 264, _ints(2))
    prepare_rows(_ints(64), _ints(2), _ints(1), spans)


_LAUNCH: dict[str, Callable[[Variant], None]] = {
    "decode": _decode,
    "prefill": _prefill,
    "running": _running,
    "whole": _whole,
    "prepare": _prepare,
    "write": _write,
    "write-extend": _write,
    "write-keep": _write,
}


def main(path: str) -> None:
    """Write the table as JSON and print it."""
    rows = rows_of(variants(), ARCHITECTURES)
    Path(path).write_text(json.dumps({"triton": triton.__version__, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(markdown(rows))
    print(*worse(rows, rows), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
