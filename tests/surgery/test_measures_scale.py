"""No measure sees the size of a state: over 600 orders of magnitude, at the ends of float64, and for odd states."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.surgery.measures import StepMeasures, factorize, measure_step, rid

NAMES = [f.name for f in fields(StepMeasures)]
LARGEST = torch.finfo(torch.float64).max
SUBNORMAL = 2.0**-1074


def numbers(step: StepMeasures) -> dict[str, float]:
    return {name: float(getattr(step, name)) for name in NAMES}


def alike(found: StepMeasures, wanted: StepMeasures, within: float = 1e-9) -> None:
    for name, value in numbers(wanted).items():
        assert math.isfinite(value) and numbers(found)[name] == pytest.approx(value, abs=within, rel=within), name


def pair(seed: int, tokens: int, features: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A state of that rank and one after an update of full rank, entries below 1 in size."""
    generator = torch.Generator().manual_seed(seed)
    left, right, update = (
        torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.5
        for shape in ((tokens, rank), (rank, features), (tokens, features))
    )
    x = left @ right / rank
    return x, x + update / 4


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.integers(1, 9),
    features=st.integers(1, 9),
    rank=st.integers(1, 9),
    first=st.floats(-300, 307.9),
    second=st.floats(-300, 307.9),
    sign=st.sampled_from([1.0, -1.0]),
)
def test_sizes_change_nothing(
    seed: int, tokens: int, features: int, rank: int, first: float, second: float, sign: float
) -> None:
    x, new = pair(seed, tokens, features, min(rank, tokens, features))
    alike(measure_step(x * (sign * 10.0**first), new * (sign * 10.0**second)), measure_step(x, new))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("at", ["largest", "tiny"])
def test_the_ends_of_a_dtype(dtype: torch.dtype, at: str) -> None:
    """Powers of two, so that the dtype itself rounds nothing."""
    x, new = (s.round(decimals=1).mul(8).round().to(dtype) for s in pair(3, 6, 7, 6))
    info, largest = torch.finfo(dtype), max(float(x.abs().max()), float(new.abs().max()))
    exponent = math.floor(math.log2(info.max / largest)) - 1 if at == "largest" else math.ceil(math.log2(info.tiny))
    scaled = [(s.double() * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2)).to(dtype) for s in (x, new)]
    alike(measure_step(*scaled), measure_step(x, new), 1e-6)


def wide(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


ODD: dict[str, torch.Tensor] = {
    "constant, largest": wide(*[[LARGEST] * 6] * 5),
    "constant, smallest": wide(*[[SUBNORMAL] * 6] * 5),
    "signs, largest": wide([LARGEST, -LARGEST], [-LARGEST, -LARGEST], [LARGEST, LARGEST]),
    "subnormal": wide([3.0, -2.0, 7.0], [1.0, 1.0, 0.0]) * SUBNORMAL,
    "one row": wide([1e308, -1e308, 3.0]),
    "one row, subnormal": wide([1.0, 2.0, 5.0]) * SUBNORMAL,
    "one column": wide([1e308], [1e-308], [-2e307]),
    "one number": wide([LARGEST]),
    "all sizes": wide([1e308, 1e-308], [1e-160, 1e160]),
    "a zero token": wide([0.0, 0.0], [1e300, 2e300]),
    "zero": wide([0.0, 0.0], [0.0, 0.0]),
    "minus zero": wide([-0.0, 0.0, -0.0]),
    "one large": torch.eye(4, dtype=torch.float64) * LARGEST,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_states_have_numbers(name: str) -> None:
    """Every number is finite and in its range, before and after, and the state itself says nothing new."""
    x = ODD[name]
    other = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).reshape(x.shape)
    smaller = min(x.shape)
    for step in (measure_step(x, other), measure_step(other, x), measure_step(x, x), measure_step(x, -x)):
        found = numbers(step)
        assert all(math.isfinite(v) for v in found.values()), found
        assert (
            0 <= found["erank"] <= smaller + 1e-9
            and 0 <= found["rid"] <= 2
            and 0 <= found["tme"] <= math.log(len(x)) + 1e-9
        )
        assert found["rid"] == pytest.approx(found["delta_s"] + found["delta_d"], abs=1e-12)
    assert float(rid(x, x)) < 1e-7 and abs(float(measure_step(x, x).mixig)) == 0
    if x.abs().max() > 0:
        assert float(measure_step(x, other).erank) >= 1 - 1e-9


def test_what_is_no_number_is_refused() -> None:
    x = pair(0, 4, 5, 4)[0]
    for value in (math.nan, math.inf, -math.inf):
        holed = x.clone()
        holed[1, 2] = value
        for state in (torch.full((4, 5), value, dtype=torch.float64), holed):
            for before, after in ((state, x), (x, state)):
                with pytest.raises(
                    LostattnError, match="NaN or infinity as float64: measure it where it is still finite"
                ):
                    measure_step(before, after)


def test_float64_that_float32_cannot_hold_is_refused() -> None:
    x = pair(0, 4, 5, 4)[0]
    with pytest.raises(LostattnError, match="as float32"):
        factorize(x * 1e300, dtype=torch.float32)
    for size in (1e-300, 1e-44, SUBNORMAL * 2.0**60):
        with pytest.raises(LostattnError, match="too small for float32: measure it with dtype=torch.float64"):
            factorize(torch.stack([x, x * size]), dtype=torch.float32)
    assert float(factorize(x * 0, dtype=torch.float32).rank) == 0
    assert factorize(torch.zeros(0, 3, 4, dtype=torch.float64), dtype=torch.float32).values.shape == (0, 3)
