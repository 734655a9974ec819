"""What is said without a GPU, and what is not imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lostattn.serving.benchmark import attention_bound
from lostattn.serving.engine.kernels.triton_kernels import asked_for, available, reason_against
from lostattn.surgery.cli import main


def test_the_switch() -> None:
    assert (
        asked_for({"LOSTATTN_KERNELS": "triton"}) and not asked_for({"LOSTATTN_KERNELS": "numba"}) and not asked_for({})
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_cpu_is_refused() -> None:
    assert not available(torch.device("cpu"))
    assert "unset LOSTATTN_KERNELS" in str(reason_against(torch.device("cpu")))


def test_a_missing_triton_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert str(reason_against(torch.device("cuda"))).startswith("Triton is not installed: ")


ROOT = Path(__file__).parents[3]
REFUSED = [
    (["--device", "cpu", "--requests", "4"], "--requests means nothing with --device cpu"),
    (["--device", "cpu", "--text-tokens", "4"], "--text-tokens means nothing with --device cpu"),
    (["--device", "cuda", "--threads", "2"], "--threads means nothing with --device cuda"),
    (["--device", "cuda", "--seconds", "2"], "--seconds means nothing with --device cuda"),
    (["--device", "cuda", "--dtype", "float32"], "does not measure float32"),
    (["--device", "cpu", "--dtype", "float16"], "does not measure float16"),
    (["--device", "cuda", "--requests", "0"], "requests"),
]


@pytest.mark.parametrize("options, words", REFUSED)
def test_options_that_mean_nothing(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    _refused(options, words, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    _refused(["--device", "cuda"], "torch sees no CUDA device", capsys)


def _refused(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "attention", *options])
    told = capsys.readouterr()
    assert end.value.code == 2 and words in told.err and told.out == "", told.err


def test_the_document_shows_the_roofline() -> None:
    assert attention_bound.markdown() in (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")


def test_the_roofline_counts_every_pair() -> None:
    """Against the pairs of a mask: text keys of patched rows, all keys of unpatched ones."""
    visual, text, heads, kv_heads, d = 37, 20, 4, 2, 64
    rows = text + visual
    mask = torch.ones(rows, rows, dtype=torch.bool).tril()
    plain = attention_bound.prefill_work(visual, text, heads, kv_heads, d, False)
    assert plain.flops == 4 * heads * d * int(mask.sum())
    mask[:, text // 2 : text // 2 + visual] = False
    ours = attention_bound.prefill_work(visual, text, heads, kv_heads, d, True)
    assert ours.flops == 4 * heads * d * int(mask.sum()) + 2 * 16 * visual * kv_heads * d


def test_no_vllm_is_needed() -> None:
    """Neither by the kernels nor by the benchmark of a layer."""
    code = """
import sys
import lostattn.serving.engine.kernels.triton_kernels
import lostattn.serving.benchmark.attention_table
import lostattn.serving.benchmark.attention
import lostattn.serving.engine.kernels.triton_prefill, lostattn.serving.engine.kernels.triton_whole_sums
print(sorted({"vllm"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
