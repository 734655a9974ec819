"""Run by test_interpreted.py under TRITON_INTERPRET=1: the benchmark's own code on a tiny shape, without a clock's meaning."""

from __future__ import annotations

import pytest
import torch
from lostattn.patches.errors import LostattnError
from lostattn.serving.benchmark import attention
from lostattn.serving.benchmark.attention_scene import LayerShape
from lostattn.serving.benchmark.attention_table import HEAD, table_rows
from lostattn.serving.engine.kernels.triton_kernels import Variant, available, reason_against, reason_against_variant

TINY = LayerShape(1, 1, 1, heads=4, kv_heads=2, d=64)
CPU = torch.device("cpu")


def test_tiny_shape() -> None:
    found = attention.bench_device_attention([40], [1, 3], 20, torch.float32, CPU, shape=TINY)
    assert [(r["phase"], r["requests"], r["visual"]) for r in found["rows"]][:2] == [
        ("decode", 1, 40),
        ("prefill", 1, 40),
    ]
    assert all(0 < r["error"] < 1e-5 for r in found["rows"])
    decode = found["rows"][2]
    # 3 requests of 20 text tokens: keys and values, one summary, query and output
    assert decode["bytes"] == 3 * (20 * 2 * 2 * 64 * 4 + 2 * 65 * 4 + 2 * 4 * 64 * 4)
    rows = table_rows(
        {"rows": [*found["rows"], {"phase": "decode", "requests": 1, "visual": 9, "skipped": "not enough memory"}]}
    )
    assert {len(row) for row in rows} == {len(HEAD)}


def test_wrong_results_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention.decode_reference
    monkeypatch.setattr(attention, "decode_reference", lambda *arguments: right(*arguments) + 0.1)
    with pytest.raises(LostattnError, match="do not serve"):
        attention.bench_device_attention([40], [1], 20, torch.float32, CPU, shape=TINY)


def test_devices_and_variants() -> None:
    assert available(CPU) and "xpu" in str(reason_against(torch.device("xpu")))
    good = Variant(torch.bfloat16, torch.bfloat16, 128, 7, 16)
    assert reason_against_variant(good) is None
    for change in (
        {"dtype": torch.float64},
        {"cache_dtype": torch.int8},
        {"head_size": 24},
        {"group": 17},
        {"block_size": 0},
    ):
        assert str(reason_against_variant(good._replace(**change))).count(":") == 1
