"""A resource that another one outdoes can be left out: nobody gets another rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.engine.contention import fair_rates
from simulator.engine.redundant_resources import redundant

A, B, C = (0, 1), (0, 2), (1, 3)


@pytest.mark.parametrize(
    ("columns", "capacities", "expected"),
    [
        # the same users and a larger capacity
        ({"card": {A: 1, B: 1}, "node": {A: 1, B: 1}}, {"card": 1.0, "node": 1.5}, {"node"}),
        # equal: the first is kept
        ({"card": {A: 1, B: 1}, "node": {A: 1, B: 1}}, {"card": 1.0, "node": 1.0}, {"node"}),
        # it has a user that the other one has not
        ({"card": {A: 1, B: 1}, "node": {A: 1, B: 1, C: 1}}, {"card": 1.0, "node": 2.5}, set()),
        # the other one has a user more and is as tight
        ({"card": {A: 1, B: 1}, "node": {A: 1, B: 1, C: 1}}, {"card": 1.0, "node": 1.0}, {"card"}),
        # each is tighter for one of them
        ({"card": {A: 2, B: 1}, "node": {A: 1, B: 2}}, {"card": 1.0, "node": 1.0}, set()),
    ],
)
def test_what_is_superfluous(columns, capacities, expected) -> None:
    assert redundant(columns, capacities) == expected


@st.composite
def uses(draw) -> tuple[dict[str, dict[tuple[int, int], float]], dict[str, float]]:
    amounts = st.dictionaries(
        st.sampled_from([A, B, C]), st.sampled_from([0.5, 1.0, 2.0]), min_size=1
    )
    columns = draw(st.dictionaries(st.sampled_from("pqrs"), amounts, min_size=1))
    return columns, {name: draw(st.sampled_from([0.5, 1.0, 1.5, 3.0])) for name in columns}


@given(uses())
def test_no_rate_changes_without_it(use) -> None:
    """Whichever activities are under way."""
    columns, capacities = use
    left_out = redundant(columns, capacities)
    assert left_out < columns.keys()
    for active in ([A, B, C], [A, B], [B, C], [A]):
        demands = [
            tuple((name, column[key]) for name, column in columns.items() if key in column)
            for key in active
        ]
        kept = {name: capacities[name] for name in columns.keys() - left_out}
        assert fair_rates(demands, kept) == pytest.approx(fair_rates(demands, capacities))
