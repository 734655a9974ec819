"""What the Triton kernels take of a GPU: a few variants are compiled and held against the committed table."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TABLE = json.loads((ROOT / "docs" / "kernels.json").read_text(encoding="utf-8"))
triton = pytest.importorskip("triton")
if importlib.util.find_spec("triton.backends.nvidia") is None or triton.knobs.runtime.interpret:
    pytest.skip("needs Triton's compiler for NVIDIA GPUs", allow_module_level=True)

from lostattn.serving.engine.kernels.triton_resources import (  # noqa: E402
    ARCHITECTURES,
    Variant,
    markdown,
    rows_of,
    variants,
    worse,
)

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


def test_what_is_worse_is_told() -> None:
    row = TABLE["rows"][0]
    change = {"registers": row["registers"] * 2}, {"spills": 3}, {"stack": 8}, {"shared": row["shared"] * 2 + 1024}
    for more in (*change, {"variant": "none"}):
        assert len(worse([{**row, **more}], TABLE["rows"])) == 1
