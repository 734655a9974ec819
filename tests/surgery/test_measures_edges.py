"""The measures of degenerate states, batches and dtypes; what they refuse, how often they factorise, what they hold."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from lostattn.patches.errors import LostattnError
from lostattn.surgery import measures, spectrum
from lostattn.surgery.bench_measures import bench_measures
from lostattn.surgery.measures import (
    effective_rank,
    factorize,
    measure_step,
    mixing_information_gain,
    residuals,
    rid,
    spectrum_change,
    support_innovation,
    token_mixing_entropy,
)
from torch.utils._python_dispatch import TorchDispatchMode


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def low_rank(tokens, features, rank, seed=0):
    """Of small integers: exact in every dtype but the shortest."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randint(-3, 4, s, generator=generator) for s in ((tokens, rank), (rank, features)))
    return (left @ right).double()


def test_degenerate_states():
    zero, x = torch.zeros(6, 4), low_rank(6, 4, 2)
    some = effective_rank(x)
    assert effective_rank(zero) == 0 and effective_rank(torch.ones(6, 4)) == pytest.approx(1)
    assert support_innovation(zero, x) == 1 and rid(zero, x) == pytest.approx(1 + some / 4)
    assert support_innovation(x, zero) == 0 and rid(x, zero) == pytest.approx(some / 4)
    assert rid(zero, zero) == 0 and support_innovation(zero, zero, combine="l2") == 0
    assert support_innovation(zero, x, combine="sum") == 2
    assert support_innovation(zero, x, combine="l2") == pytest.approx(math.sqrt(2))
    assert mixing_information_gain(zero, zero) == 0
    assert token_mixing_entropy(zero) == pytest.approx(math.log(6))
    token = random(1, 5)
    assert effective_rank(token) == pytest.approx(1) and spectrum_change(token, -token) < 1e-14
    assert token_mixing_entropy(token) == 0 == token_mixing_entropy(token, normalize=True)
    assert token_mixing_entropy(0 * token) == 0
    assert rid(torch.ones(1, 1), torch.full((1, 1), -3.0)) == 0


def test_entropy_of_special_tokens():
    assert token_mixing_entropy(torch.ones(7, 3)) == pytest.approx(math.log(7))
    pair = random(8, 1).T  # opposite pairs: each sees its own half only
    both = torch.cat([pair] * 3 + [-pair] * 3)
    for dtype in (torch.float64, torch.float32):
        assert float(token_mixing_entropy(both, dtype=dtype)) == pytest.approx(math.log(3), abs=1e-6)
    many = torch.cat([random(50, 33), -random(50, 33)])
    assert torch.isfinite(token_mixing_entropy(many, sharpen=8)) and torch.isfinite(token_mixing_entropy(many.float()))
    lone = torch.tensor([[1.0, 0], [1, 0], [0, 0]])  # weights 1 1 .5 / 1 1 .5 / .5 .5 .5
    seen = math.log(2.5) + 0.2 * math.log(2)
    assert token_mixing_entropy(lone) == pytest.approx((2 * seen + math.log(3)) / 3)
    assert token_mixing_entropy(lone, rows="last", normalize=True) == pytest.approx(1)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (0,), (2, 0)])
@pytest.mark.parametrize("tokens, features", [(6, 9), (9, 6), (260, 300)])
def test_batch_is_a_loop(batch, tokens, features):
    x = random(*batch, tokens, features, dtype=torch.float32)
    x_new = x + random(*batch, tokens, features, seed=1, dtype=torch.float32)
    x = x.index_fill(-1, torch.arange(4), 0.0)
    together = measure_step(x, x_new, dtype=torch.float32)
    pairs = zip(x.reshape(-1, tokens, features) if x.numel() else [], x_new.reshape(-1, tokens, features), strict=False)
    alone = [measure_step(a, b, dtype=torch.float32) for a, b in pairs] if x.numel() else []
    for field in fields(together):
        value = getattr(together, field.name)
        assert value.shape == batch and value.dtype == (torch.int64 if field.name == "rank" else torch.float32)
        if alone:
            assert torch.equal(value.flatten(), torch.stack([getattr(one, field.name) for one in alone]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    """Every dtype in; inside, float32 stays near float64; half precision keeps the rank float32 gives it."""
    x, x_new = random(50, 80).to(dtype), random(50, 80, seed=1).to(dtype)
    exact, short = measure_step(x, x_new), measure_step(x, x_new, dtype=torch.float32)
    for field in fields(exact):
        a, b = getattr(exact, field.name), getattr(short, field.name)
        assert a.dtype == (torch.int64 if field.name == "rank" else torch.float64)
        assert float(b) == pytest.approx(float(a), rel=1e-5, abs=1e-6)
    assert int(exact.rank) == 50
    assert effective_rank(x.requires_grad_()).requires_grad is False


def test_step_equals_the_single_measures(monkeypatch):
    """And three states are factorised three times, whatever is asked of them."""
    states = [random(200, 260, seed=s, dtype=torch.float32) for s in range(3)]
    states[1] = states[0] + 0.1 * states[1]
    made = []
    plain = torch.linalg.eigvalsh
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda a: made.append(len(a)) or plain(a))
    for name in ("svd", "svdvals", "eigh"):
        monkeypatch.setattr(torch.linalg, name, lambda *_, **__: pytest.fail("full rank needs no vectors"))
    first, second, third = (factorize(x) for x in states)
    steps = [measure_step(first, second), measure_step(second, third)]
    assert effective_rank(third) == steps[1].erank_new
    assert rid(first, second) == steps[0].rid and spectrum_change(second, third) == steps[1].delta_s
    assert support_innovation(first, second) == steps[0].delta_d
    assert residuals(first, second) == (steps[0].column_residual, steps[0].row_residual)
    assert mixing_information_gain(second, third) == steps[1].mixig == steps[1].tme_new - steps[0].tme_new
    assert made == [200, 200, 200]
    monkeypatch.undo()
    assert rid(states[0], states[1]) == steps[0].rid == rid(first, states[1]) == rid(states[0], second)


class Largest(TorchDispatchMode):
    """The most numbers that any result of torch holds."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(one, torch.Tensor):
                self.most = max(self.most, one.numel())
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3000, 64), (64, 3000)])
def test_nothing_square_of_the_longer_side(shape, dtype, monkeypatch):
    for module in (spectrum, measures):
        monkeypatch.setattr(module, "_CHUNK", 1 << 17)
    x = low_rank(*shape, 20).to(dtype)
    x_new = x + random(*shape, seed=1).to(dtype)
    with Largest() as seen:
        measure_step(x, x_new)
    assert seen.most <= 3000 * 64 < 3000 * 3000


def test_refusals():
    x = random(5, 4)
    for value in (math.nan, math.inf, -math.inf):
        bad = x.clone()
        bad[2, 1] = value
        for measure in (effective_rank, token_mixing_entropy):
            with pytest.raises(LostattnError, match="NaN or infinity"):
                measure(bad)
        for measure in (rid, spectrum_change, support_innovation, mixing_information_gain, measure_step):
            for pair in ((x, bad), (bad, x)):
                with pytest.raises(LostattnError, match="NaN or infinity"):
                    measure(*pair)
    with pytest.raises(LostattnError, match="as float32"):
        effective_rank(x * 1e300, dtype=torch.float32)
    for wrong in (x.long(), x.to(torch.complex64), [[1.0]]):
        with pytest.raises(LostattnError, match="tensor of floats"):
            effective_rank(wrong)
    for shape in ((4,), (0, 4), (4, 0)):
        with pytest.raises(LostattnError, match="tokens, features"):
            effective_rank(torch.zeros(shape))
    for other in (x.T, x[None], x[:4]):
        with pytest.raises(LostattnError, match="shapes"):
            rid(x, other)
    for eps in (-1.0, 0.3, math.nan):
        with pytest.raises(LostattnError, match="eps"):
            rid(x, x, eps=eps)
    with pytest.raises(LostattnError, match="float64 or torch.float32"):
        effective_rank(x, dtype=torch.float16)
    with pytest.raises(LostattnError, match="'mean', 'sum' or 'l2'"):
        support_innovation(x, x, combine="max")
    for option in ({"rows": "first"}, {"sharpen": 0}, {"sharpen": math.nan}):
        with pytest.raises(LostattnError, match="rows must be"):
            token_mixing_entropy(x, **option)
    with pytest.raises(LostattnError, match="give them to factorize"):
        rid(factorize(x), x, eps=1e-3)
    with pytest.raises(LostattnError, match="factorize both alike"):
        rid(factorize(x), factorize(x, dtype=torch.float32))


def test_benchmark_agrees_with_the_plain_implementation():
    found = bench_measures(shapes=((260, 300), (300, 260)), repeats=1)
    assert [row["spectrum"] for row in found["rows"]] == ["full", "steep"] * 2
    for row in found["rows"]:
        assert row["difference"] < 1e-5 and (row["rank"] == 260) == (row["spectrum"] == "full")
        assert row["ours_s"] > 0 and row["ratio"] > 0
