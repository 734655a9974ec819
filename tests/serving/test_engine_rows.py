"""Prefill rows in closed form, in plain torch and compiled, against the eager oracle in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lostattn.patches.attention_inputs import AttentionInputs, Layout, PriorScores
from lostattn.patches.eager import eager_attention
from lostattn.serving.engine.kernels import numba_prefill as compiled
from lostattn.serving.engine.kernels.torch_prefill import VisualRows, torch_rows

KEYS = {
    "image in the middle": "ttttt" + "v" * 20 + "tttttttt",
    "image first": "v" * 15 + "ttttt",
    "image last": "tttttt" + "v" * 12,
    "many images": "t" + ("vvvv" + "tt") * 6 + "t",
    "nothing but an image": "v" * 12,
}
HEADS = {"all": range(8), "one group": range(2, 4), "scattered": (0, 1, 4), "one": (5,)}
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 4e-2}


def rows_of(form: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> object:
    if form == "torch":
        return torch_rows
    pytest.importorskip("numba")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(compiled, "FEW", 1)
    return compiled.compiled_rows


def make_job(
    keys: str, rows: int, heads: object, dtype: torch.dtype, span: float = 1.0, channels: int = 32
) -> AttentionInputs:
    torch.manual_seed(0)
    visual = torch.tensor([[c == "v" for c in keys]])
    prior = (torch.randn(1, len(keys)) * span).masked_fill(~visual, torch.nan)
    flags = torch.zeros(8, dtype=torch.bool)
    flags[list(heads)] = True  # type: ignore[call-overload]
    q = torch.randn(rows, 8, channels).to(dtype).transpose(0, 1)[None]
    k, v = (torch.randn(1, 4, len(keys), channels).to(dtype) for _ in range(2))
    scores = PriorScores(prior, torch.linspace(-2, 2, 8))
    return AttentionInputs(
        q, k, v, channels**-0.5, scores, flags, layout=Layout.of(visual), listed=tuple(flags.nonzero()[:, 0].tolist())
    )


def oracle(job: AttentionInputs) -> torch.Tensor:
    level = job.scores.level
    scores = PriorScores(job.scores.prior.double(), None if level is None else level.double())
    found = eager_attention(replace(job, q=job.q.double(), k=job.k.double(), v=job.v.double(), scores=scores))[0]
    return found[0].transpose(0, 1)


def check(form: object, job: AttentionInputs, forgets: bool = False) -> None:
    """All rows of the listed heads, nothing of the others, and the running summaries of the visual rows."""
    rows, layout = job.q.shape[2], job.layout
    assert layout is not None and job.listed is not None
    prior = layout.keys(job.scores.prior, 1, True)
    seen, heads = VisualRows.of(prior, layout, rows), list(job.listed)
    used, values = sorted({h // 2 for h in heads}), layout.keys(job.v, 2, True)[0]
    kept, wanted = (seen.count > 0).nonzero()[:, 0], oracle(job)
    front = None
    if forgets:  # as a cache of summaries does
        front = values[used, : seen.before].float()
        job = replace(job, v=job.v.clone())
        job.v[:, :, layout.visual[: seen.before]] = torch.nan
    out = torch.full((rows, 8, job.q.shape[3]), 7.0, dtype=job.q.dtype)
    mean, mass = form(job, heads, seen, front, kept, out)  # type: ignore[operator]
    others = [h for h in range(8) if h not in heads]
    assert (out[:, heads].double() - wanted[:, heads]).abs().max() < TOLERANCE[out.dtype] and (
        out[:, others] == 7
    ).all()
    for i, row in enumerate(kept.tolist()):
        p = prior[0, : seen.count[row]].double()
        true = torch.einsum("t,gtd->gd", p.softmax(0), values[used, : len(p)].double())
        assert torch.allclose(mean[i].double(), true, atol=5e-6) and torch.isclose(
            mass[i].double(), p.logsumexp(0), atol=1e-4
        )


@pytest.mark.parametrize("form", ["torch", "compiled"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("keys", KEYS)
def test_rows_equal_the_oracle(
    form: str, dtype: torch.dtype, heads: str, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows, threads in ((len(KEYS[keys]), 1), (9, 3), (2, 1), (1, 1)):
        run = rows_of(form, threads, monkeypatch)
        for forgets in (False, True):
            check(run, make_job(KEYS[keys], rows, HEADS[heads], dtype), forgets)


@pytest.mark.parametrize("channels", [16, 80, 128, 24])
def test_any_number_of_channels(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rows_of("compiled", 2, monkeypatch)
    check(run, make_job(KEYS["many images"], 20, range(8), torch.float32, channels=channels))


@pytest.mark.parametrize("form", ["torch", "compiled"])
@pytest.mark.parametrize("span", [60.0, 1000.0])
def test_scores_that_lie_far_apart(form: str, span: float, monkeypatch: pytest.MonkeyPatch) -> None:
    check(rows_of(form, 1, monkeypatch), make_job(KEYS["many images"], 20, range(8), torch.float32, span))


def test_the_loops_are_compiled_while_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    from lostattn.serving.engine.kernels.numba_prefill_kernel import merge_kernel

    for dtype in TOLERANCE:
        compiled.prepare_rows.cache_clear()
        torch.set_default_dtype(torch.bfloat16)  # as vLLM does
        try:
            compiled.prepare_rows(48, dtype)
        finally:
            torch.set_default_dtype(torch.float32)
    known = len(merge_kernel(48).signatures)
    for dtype in TOLERANCE:
        check(compiled.compiled_rows, make_job(KEYS["many images"], 20, (0, 1, 4), dtype, channels=48), True)
    assert known == len(TOLERANCE) == len(merge_kernel(48).signatures), "a request had to wait for the compiler"
