"""Where layers keep the sums of decoding requests."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from lostattn.serving.engine.attention.tables import SummaryTable, TableRows


@given(st.lists(st.lists(st.integers(0, 6), unique=True, max_size=5), max_size=30), st.integers(0, 2))
def test_what_is_kept_of_a_request_stays_its_own(batches: list[list[int]], keep: int) -> None:
    places, table, last_seen = TableRows(torch.device("cpu"), keep), SummaryTable(2, 3), dict[int, int]()
    for step, names in enumerate(batches):
        taken, fresh = places.take(names)
        again = [n for n in names if n in last_seen and step - last_seen[n] <= keep + 1]
        assert not {names[number] for number, _ in fresh} & set(again), "known requests are filled once"
        if fresh:
            known = torch.tensor([float(names[number]) for number, _ in fresh])
            table.fill([place for _, place in fresh], known, known[:, None, None].expand(-1, 2, 3))
        mass, mean = table.read(taken)
        assert mass.tolist() == names and mean.flatten(1).eq(mass[:, None]).all()
        last_seen |= dict.fromkeys(names, step)
    assert len(table.log_mass) <= 16, "free places are taken again"


def test_neighbouring_places_are_read_without_a_copy() -> None:
    places = TableRows(torch.device("cpu"))
    assert places.take(["a", "b", "c"]) == (slice(0, 3), [(0, 0), (1, 1), (2, 2)])
    assert places.take(["b", "c"]) == (slice(1, 3), [])
    assert places.take(["d", "c"])[1] == [(0, 0)]
    assert places.take(["e", "c"])[1] == [(0, 0)], "whoever is gone leaves its place at once"
    taken, fresh = places.take(["c", "e"])
    assert isinstance(taken, torch.Tensor) and taken.tolist() == [2, 0] and not fresh
