"""A resource that another one outdoes can be left out: nobody gets another rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cluster.resource import Resource, ResourceKind
from simulator.engine.contention import fair_rates
from simulator.engine.redundant_resources import Column, redundant

A, B, C = (0, 1), (0, 2), (1, 3)
CARDS = [Resource(ResourceKind.NIC, 0, card) for card in range(4)]
CARD, SWITCH = CARDS[0], Resource(ResourceKind.UPLINK, 1, 0)


@pytest.mark.parametrize(
    ("columns", "capacities", "expected"),
    [
        # the same users and a larger capacity
        ({CARD: {A: 1, B: 1}, SWITCH: {A: 1, B: 1}}, {CARD: 1.0, SWITCH: 1.5}, {SWITCH}),
        # equal: the first is kept
        ({CARD: {A: 1, B: 1}, SWITCH: {A: 1, B: 1}}, {CARD: 1.0, SWITCH: 1.0}, {SWITCH}),
        # it has a user that the other one has not
        ({CARD: {A: 1, B: 1}, SWITCH: {A: 1, B: 1, C: 1}}, {CARD: 1.0, SWITCH: 2.5}, set()),
        # the other one has a user more and is as tight
        ({CARD: {A: 1, B: 1}, SWITCH: {A: 1, B: 1, C: 1}}, {CARD: 1.0, SWITCH: 1.0}, {CARD}),
        # each is tighter for one of them
        ({CARD: {A: 2, B: 1}, SWITCH: {A: 1, B: 2}}, {CARD: 1.0, SWITCH: 1.0}, set()),
    ],
)
def test_what_is_superfluous(columns, capacities, expected) -> None:
    assert redundant(columns, capacities) == expected


@st.composite
def uses(draw) -> tuple[dict[Resource, Column], dict[Resource, float]]:
    amounts = st.dictionaries(
        st.sampled_from([A, B, C]), st.sampled_from([0.5, 1.0, 2.0]), min_size=1
    )
    columns = draw(
        st.dictionaries(
            st.sampled_from(CARDS),
            amounts,
            min_size=1,
        )
    )
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
