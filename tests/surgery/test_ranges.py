"""How users write layers and heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.surgery.ranges import format_numbers, parse_heads, parse_layers, parse_numbers, whole_numbers

NUMBERS = st.sets(st.integers(0, 200), min_size=1)


@given(NUMBERS)
def test_what_is_formatted_is_read_again(numbers: set[int]) -> None:
    assert parse_numbers(format_numbers(numbers), "layers") == sorted(numbers)


@given(st.dictionaries(st.integers(0, 90), NUMBERS, min_size=1))
def test_lists_of_heads_as_text_and_as_mapping(heads: dict[int, set[int]]) -> None:
    wanted = {layer: sorted(numbers) for layer, numbers in heads.items()}
    assert parse_heads(";".join(f"{k}:{format_numbers(v)}" for k, v in heads.items())) == wanted
    assert parse_heads({str(k): [str(n) for n in v] for k, v in heads.items()}) == wanted
    assert parse_heads({np.int64(k): np.array(sorted(v)) for k, v in heads.items()}) == wanted


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (lambda: parse_layers(text, 8), lambda: parse_heads(text)):
        try:
            parse()
        except LostattnError as error:
            assert len(str(error)) > 10


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_band_is_two_numbers(low: float, high: float) -> None:
    assert parse_heads((low, high)) == parse_heads([low, high]) == (low, high)
    assert parse_heads(f"{low:.4f}-{high:.4f}") == (round(low, 4), round(high, 4))


def test_examples_of_the_help_text() -> None:
    assert parse_layers("1-27", 28) == list(range(1, 28))
    assert parse_layers("1,3, 5 - 7", 8) == [1, 3, 5, 6, 7]
    assert parse_layers("ALL", 3) == [0, 1, 2]
    assert parse_heads("0.3-0.6") == parse_heads(" .3 - 0.6 ") == (0.3, 0.6)
    assert parse_heads(" All ") == "all" and parse_heads(None) is None and parse_layers(None, 4) is None
    assert parse_heads("3:0,1,5;4:2") == {3: [0, 1, 5], 4: [2]}
    assert parse_heads({3: 1, 4: "0-2"}) == {3: [1], 4: [0, 1, 2]}


@pytest.mark.parametrize("layers", ["none", " None ", [], (), np.array([], dtype=int), range(0)])
def test_no_layers(layers: object) -> None:
    assert parse_layers(layers, 4) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [2, "2", [2], np.int32(2), np.array([2]), torch.tensor([2]), (i for i in [2]), {2}])
def test_one_layer_in_every_form(layers: object) -> None:
    assert parse_layers(layers, 4) == [2]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("", "empty.*unset shell variable"),
        (" \t", "empty"),
        ("\u0663", "cannot read layers"),
        ("1\u20133", "cannot read"),
        ("0x1", "cannot read layers"),
        ("1_0", "cannot read layers"),
        ("1,", "cannot read layers"),
        ("1,,2", "cannot read"),
        ([1, "x"], "whole numbers, not 'x'"),
        ([1.0], "whole numbers, not 1.0"),
        (True, "not True"),
        ([[1]], r"not \[1\]"),
        ([None], "not None"),
        ({1: 2}, "whole numbers"),
        (b"12", "whole numbers"),
        ([1, 1], "twice"),
        ("1,1", "twice"),
        ("1-3,2", "twice"),
        ("3-1", "backwards"),
        ("0-900000000", "absurdly long"),
        ("1;2", "1-27 or 0,2,5-7"),
        ("9" * 5000, "cannot read layers"),
        ("²", "cannot read layers"),
        ("-1", "cannot read layers"),
        (-1, "layer -1 does not exist"),
        ([4], "layers 0-3"),
        ("2-4", "layer 4 does not exist"),
        (2.5, "not 2.5"),
    ],
)
def test_layers_that_cannot_be(layers: object, says: str) -> None:
    with pytest.raises(LostattnError, match=says):
        parse_layers(layers, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("heads", "says"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("0-1", "0.0-1.0 .*3:0,1"),
        ("1-1", "1.0-1.0"),
        ("2 - 5", "3:0,1"),
        ((0, 1), "3:0,1"),
        ([0, 1], "3:0,1"),
        (np.array([0, 1]), "3:0,1"),
        ([True, 0.5], "a band"),
        (["0.1", "0.2"], "a band"),
        (3, "'all', a band"),
        ("3", "write all, a band"),
        ([1], "a band"),
        ([1, 2, 3], "a band"),
        (["a", "b"], "a band"),
        ([None, 1], "a band"),
        ("3:", "heads of layer 3 ''"),
        (":1", "layer:heads"),
        ("3:0;3:1", "given twice"),
        ("3:0,0", "twice"),
        ("x:1", "layer:heads"),
        ("²:1", "layer:heads"),
        ("3:1;4", "layer:heads"),
        ({"a": [1]}, "whole numbers"),
        ({3: None}, "heads of layer 3 must be whole numbers"),
        ({3: {1: 2}}, "whole numbers"),
        ({3: [0], "3": [1]}, "given twice"),
        ({3: [1, 1]}, "twice"),
        ({3: "all"}, "heads of layer 3 'all'"),
        ([10**400, 1], "a band"),
    ],
)
def test_heads_that_cannot_be(heads: object, says: str) -> None:
    with pytest.raises(LostattnError, match=says):
        parse_heads(heads)  # type: ignore[arg-type]


def test_a_number_of_any_integer_type() -> None:
    assert whole_numbers([np.uint8(3), torch.tensor(1), " 2 "], "x") == [1, 2, 3]
    with pytest.raises(LostattnError, match="x must be whole numbers"):
        whole_numbers([np.True_], "x")


def test_ranges_are_formatted_shortly() -> None:
    assert format_numbers([7, 1, 2, 3]) == "1-3,7" and format_numbers([]) == "none" and format_numbers([4]) == "4"
