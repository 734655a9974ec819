"""What the Triton kernels take of a GPU: a few variants are compiled and held against the committed table."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
TABLE = json.loads((ROOT / "docs" / "kernels.json").read_text(encoding="utf-8"))
triton = pytest.importorskip("triton")
if importlib.util.find_spec("triton.backends.nvidia") is None or triton.knobs.runtime.interpret:
    pytest.skip("needs Triton's compiler for NVIDIA GPUs", allow_module_level=True)

from lostattn.serving.engine.kernels.triton_common import PagedCache  # noqa: E402
from lostattn.serving.engine.kernels.triton_compile import compiling, paged  # noqa: E402
from lostattn.serving.engine.kernels.triton_prefill import prefill  # noqa: E402
from lostattn.serving.engine.kernels.triton_prepare import Spans, Text, prepare_rows  # noqa: E402
from lostattn.serving.engine.kernels.triton_resources import (  # noqa: E402
    ARCHITECTURES,
    Variant,
    markdown,
    rows_of,
    variants,
    worse,
)
from lostattn.serving.engine.kernels.triton_summaries import RunningSums, running_sums  # noqa: E402

FEW = [Variant("decode"), Variant("prefill", parts=2048), Variant("running"), Variant("whole")]


def test_the_table_is_whole_and_spills_nothing() -> None:
    found = {(row["arch"], row["variant"]) for row in TABLE["rows"]}
    assert found == {(arch, str(variant)) for arch in ARCHITECTURES for variant in variants()}
    assert worse(TABLE["rows"], TABLE["rows"]) == []


def test_the_document_shows_the_table() -> None:
    assert markdown(TABLE["rows"]) in (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("variant", FEW, ids=str)
def test_nothing_takes_more(variant: Variant) -> None:
    rows = rows_of([variant], [90])
    assert rows
    known = TABLE["rows"] if TABLE["triton"] == triton.__version__ else rows  # other compilers: nothing may spill
    assert worse(rows, known) == []


@pytest.mark.slow
def test_sizes_of_a_step_compile_nothing_anew() -> None:
    """Numbers of rows and requests that Triton would else look at: one, and multiples of 16."""
    found = set()
    for rows, requests in ((64, 1), (131, 2), (1040, 16)):
        starts, lengths, seen = (torch.zeros(n, dtype=torch.int32) for n in (requests + 1, requests, rows))
        cache, text = PagedCache(*paged(torch.bfloat16, 2, 16, 64)), Text.of(requests, 4, 16, "cpu")
        q, sums = torch.zeros(rows, 4, 64, dtype=torch.bfloat16), RunningSums.of(rows, requests, 2, 64, "cpu")
        with compiling(90) as kernels:
            prepare_rows(seen, starts, lengths, Spans(starts, lengths, lengths))
            running_sums(sums, torch.zeros(rows), q[:, :2], starts, cache, text.carry)
            prefill(torch.empty_like(q), q, cache, text, starts, lengths, sums, seen, 1.0)
        found.add(tuple(kernel.hash for kernel in kernels))
    assert len(found) == 1


def test_what_is_worse_is_told() -> None:
    row = TABLE["rows"][0]
    change = {"registers": row["registers"] * 2}, {"spills": 3}, {"stack": 8}, {"shared": row["shared"] * 2 + 1024}
    for more in (*change, {"variant": "none"}):
        assert len(worse([{**row, **more}], TABLE["rows"])) == 1
