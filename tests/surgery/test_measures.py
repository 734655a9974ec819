"""The measures against recorded values, an independent projector form, and what must hold for any state."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lostattn.surgery import spectrum
from lostattn.surgery.measures import (
    effective_rank,
    factorize,
    measure_step,
    mixing_information_gain,
    residuals,
    rid,
    support_innovation,
    token_mixing_entropy,
)
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent.parent / "golden" / "metrics"
CASES = {case["name"]: case for case in json.loads((GOLDEN / "expected.json").read_text())["cases"]}
MATRICES = load_file(GOLDEN / "matrices.safetensors")
EPS32 = torch.finfo(torch.float32).eps
FORMS = ((24, 64), (64, 24), (40, 40), (1, 9), (9, 1), (300, 420), (420, 300), (190, 400))


def triple(name):
    return [MATRICES[f"{name}.{state}"] for state in ("X", "Xp", "Xpp")]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def low_rank(tokens, features, rank, seed=0):
    """Of small integers: exact in every dtype but the shortest."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randint(-3, 4, s, generator=generator) for s in ((tokens, rank), (rank, features)))
    return (left @ right).double()


def rotation(size, seed):
    return torch.linalg.qr(random(size, size, seed=seed)).Q


def by_projectors(x, x_new, eps):
    """Delta D from dense projectors, which the code under test never makes."""
    u, values, v = torch.linalg.svd(x)
    rank = int((values > max(x.shape) * eps * values[0]).sum())
    columns = torch.eye(len(x)).double() - u[:, :rank] @ u[:, :rank].mT
    rows = torch.eye(x.shape[1]).double() - v[:rank].mT @ v[:rank]
    norm = torch.linalg.norm(x_new)
    return torch.linalg.norm(columns @ x_new) / norm, torch.linalg.norm(x_new @ rows) / norm


@pytest.mark.parametrize("eps", ["eps64", "eps32"])
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_recorded_paper(name, step, eps):
    x, x_new = triple(name)[step : step + 2]
    wanted = CASES[name][("paper_attn", "paper_ffn")[step]]
    found = measure_step(x, x_new, eps=EPS32 if eps == "eps32" else None)
    names = {
        "erank_X": found.erank,
        "erank_Xp": found.erank_new,
        "delta_S": found.delta_s,
        f"rank_X_{eps}": found.rank,
        f"delta_D_{eps}": found.delta_d,
        f"col_residual_{eps}": found.column_residual,
        f"row_residual_{eps}": found.row_residual,
        f"RID_{eps}": found.rid,
        "tme_X": found.tme,
        "tme_Xp": found.tme_new,
        "mixig": found.mixig,
    }
    assert set(names) == {k for k in wanted if not k.endswith(("eps32", "eps64")) or k.endswith(eps)}
    for key, value in names.items():
        assert float(value) == pytest.approx(wanted[key], rel=1e-9, abs=1e-9), key


@pytest.mark.parametrize("name", CASES)
def test_recorded_paper_in_float32(name):
    """float32 input is another matrix: of what float64 saw it shows what lies above its rounding."""
    states = [x.float() for x in triple(name)]
    for step, key in enumerate(("paper_attn", "paper_ffn")):
        wanted = CASES[name][key]
        found = measure_step(*states[step : step + 2])
        assert int(found.rank) == wanted["rank_X_eps32"]
        assert float(found.rid) == pytest.approx(wanted["RID_eps32"], rel=1e-5, abs=1e-6)
        assert float(found.mixig) == pytest.approx(wanted["mixig"], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_recorded_authors(name):
    """Their code in float64. Its novelty comes from differences of squares, hence the absolute tolerance (row 23)."""
    wanted, states = CASES[name]["reference_float64"], dict(zip(("X", "Xp", "Xpp"), triple(name), strict=True))
    for state, x in states.items():
        assert float(effective_rank(x)) == pytest.approx(wanted[f"effective_rank_matrix_{state}"], rel=1e-9)
        for rows in ("last", "mean"):
            for normalize in (False, True):
                for sharpen in (1, 8):
                    value = wanted[f"tme_hidden_shift_{rows}_norm{normalize:d}_alpha{sharpen}_{state}"]
                    if value is not None:  # NaN where theirs takes the logarithm of a negative weight (trap 12)
                        found = token_mixing_entropy(x, sharpen=sharpen, rows=rows, normalize=normalize)
                        assert float(found) == pytest.approx(value, rel=1e-9, abs=1e-9)
    for combine in ("sum", "l2"):  # both steps against X_in (row 22)
        for module, state in (("attn", "Xp"), ("ffn", "Xpp")):
            found = support_innovation(states["X"], states[state], combine=combine)
            assert float(found) == pytest.approx(wanted[f"novelty_{combine}_{module}"], abs=2e-6)
            if combine == "sum":
                exact = CASES[name]["paper_novelty_sum_relative_to_X"][module]
                assert float(found) == pytest.approx(exact, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tokens, features", FORMS)
@pytest.mark.parametrize("share", [0.2, 0.7, 1.0])
def test_projector_form(tokens, features, share, dtype):
    rank = max(1, int(share * min(tokens, features)))
    x = low_rank(tokens, features, rank, seed=rank)
    x_new = (x + 2 * low_rank(tokens, features, 3, seed=99)).to(dtype)
    eps = torch.finfo(dtype).eps
    columns, rows = by_projectors(x, x_new.double(), eps)
    found = residuals(x.to(dtype), x_new)
    assert int(factorize(x).rank) <= rank
    torch.testing.assert_close(found, (columns, rows), rtol=1e-9, atol=1e-12)


def test_gram_and_svd_agree_on_a_steep_spectrum():
    """Singular values far below what a Gram matrix shows, and exact zeros among them."""
    scale = torch.logspace(0, -11, 320).double()
    scale[300:] = 0
    exact = rotation(320, 1) * scale @ rotation(500, 2)[:320]
    x = exact.float()
    x_new = (exact + 0.1 * random(320, 500)).float()
    gram, svd = measure_step(x, x_new), measure_step(x.double(), x_new.double(), eps=EPS32)
    assert isinstance(factorize(x)._matrices[0], spectrum._ByGram)
    for field in fields(gram):
        torch.testing.assert_close(getattr(gram, field.name), getattr(svd, field.name), rtol=1e-8, atol=1e-10)
    zeros = torch.cat([x[:200], x[:120]])  # tokens repeat: 120 singular values are 0
    torch.testing.assert_close(effective_rank(zeros), effective_rank(zeros.double()), rtol=1e-9, atol=0)


def test_eps_chooses_the_rank():
    x = rotation(200, 1) * torch.logspace(0, -11, 200).double() @ rotation(300, 2)[:200]
    for given_eps in (1e-16, 1e-10, 1e-6):
        found = factorize(x.float(), eps=given_eps).rank
        assert int(found) == int((torch.linalg.svdvals(x.float().double()) > 300 * given_eps).sum())


@pytest.mark.parametrize("tokens, features", FORMS)
@pytest.mark.parametrize("rank", [None, 5])
def test_no_cancellation(tokens, features, rank):
    x = random(tokens, features) if rank is None else low_rank(tokens, features, min(rank, tokens, features)) / 3
    assert float(support_innovation(x, x)) < 1e-12
    assert float(rid(x, x)) < 1e-12
    assert float(support_innovation(x.float(), x.float())) < 1e-6
    assert float(rid(x.float(), x.float(), dtype=torch.float32)) < 1e-6
    if rank is None:
        columns, rows = residuals(x, random(tokens, features, seed=5))
        assert (float(columns) == 0) == (tokens <= features) and (float(rows) == 0) == (features <= tokens)


def test_small_residuals_keep_their_digits():
    """X' leaves the spaces of X by 1e-9: a difference of squares would see nothing."""
    u, v = rotation(40, 1), rotation(60, 2)
    x = u[:, :5] @ v[:5]
    x_new = x + 1e-9 * u[:, 5:6] @ v[5:6]
    columns, rows = residuals(x, x_new)
    assert float(columns) == pytest.approx(1e-9 / math.sqrt(5), rel=1e-5) == float(rows)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300, -3.0])
def test_any_magnitude(scale):
    x, x_new = random(12, 20), random(12, 20, seed=1)
    for a, b in ((x * scale, x_new), (x, x_new * scale)):
        assert float(rid(a, b)) == pytest.approx(float(rid(x, x_new)), rel=1e-9)
    assert float(token_mixing_entropy(x * scale)) == pytest.approx(float(token_mixing_entropy(x)), rel=1e-12)
    assert float(factorize(x * scale).values[0]) == pytest.approx(abs(scale) * float(factorize(x).values[0]), rel=1e-12)


@pytest.mark.parametrize("tokens, features", [(20, 33), (33, 20), (300, 310)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_invariances(tokens, features, dtype):
    x = low_rank(tokens, features, 7)
    x_new = x + low_rank(tokens, features, 3, seed=1) + random(tokens, features)
    turn_tokens, turn_features = rotation(tokens, 3), rotation(features, 4)
    tolerance = {"rel": 1e-9} if dtype == torch.float64 else {"rel": 2e-4}

    def both(a, b):
        return a.to(dtype), b.to(dtype)

    plain = both(x, x_new)
    turned = both(turn_tokens @ x @ turn_features, turn_tokens @ x_new @ turn_features)
    assert float(rid(*turned)) == pytest.approx(float(rid(*plain)), **tolerance)
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(0))
    for same in (
        both(x[order], x_new[order]),
        both(x @ turn_features, x_new @ turn_features),
        both(3 * x, 0.2 * x_new),
    ):
        assert float(rid(*same)) == pytest.approx(float(rid(*plain)), **tolerance)
        assert float(mixing_information_gain(*same)) == pytest.approx(
            float(mixing_information_gain(*plain)), abs=1e-9 if dtype == torch.float64 else 1e-6
        )


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(0, 14), st.integers(0, 10**6), st.sampled_from([16, 32, 64]))
def test_bounds(tokens, features, rank, seed, bits):
    dtype = getattr(torch, f"float{bits}")
    x = low_rank(tokens, features, rank, seed).to(dtype)
    x_new = (x.double() + random(tokens, features, seed=seed) * (seed % 3)).to(dtype)
    found = measure_step(x, x_new)
    smaller = min(tokens, features)
    for value in (found.erank, found.erank_new):
        assert value == 0 or 1 - 1e-12 <= float(value) <= smaller + 1e-9
    assert (found.erank == 0) == (not x.any())
    assert 0 <= found.delta_s <= 1 + 1e-12 and 0 <= found.rank <= smaller
    assert all(0 <= value <= 1 for value in (found.column_residual, found.row_residual, found.delta_d))
    assert 0 <= found.rid <= 2 + 1e-12
    least = math.log(tokens) - math.log(2) - 1e-9
    assert all(max(0, least) <= value <= math.log(tokens) for value in (found.tme, found.tme_new))
    assert abs(found.mixig) <= math.log(2) + 1e-9
