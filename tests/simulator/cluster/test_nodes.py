"""Nodes kept as runs say the same as nodes one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cluster.nodes import Node, Nodes

ONE, TWO, FOUR = (
    Node(("a",)), Node(("a", "b"), nics=4, nic_bandwidth=3.0), Node(("b",) * 4, nics=2)
)  # fmt: skip
runs = st.lists(st.tuples(st.sampled_from([ONE, TWO, FOUR]), st.integers(1, 4)), min_size=1)


@given(runs)
def test_runs_are_the_nodes_one_by_one(runs) -> None:
    nodes, each = Nodes(tuple(runs)), [node for node, count in runs for _ in range(count)]
    assert nodes.count == len(each)
    assert [nodes[number] for number in range(nodes.count)] == each
    assert nodes.distinct == tuple(dict.fromkeys(each))
    found = [nodes.locate(device) for device in range(nodes.num_devices)]
    assert found == [(n, at) for n, node in enumerate(each) for at in range(len(node.devices))]
    for outside in (-1, nodes.num_devices):
        with pytest.raises(ValueError, match=f"there are {nodes.num_devices}"):
            nodes.locate(outside)


def test_nodes_that_nobody_uses_take_no_place() -> None:
    nodes = Nodes(((TWO, 10**15), (FOUR, 1)))
    assert nodes.num_devices == 2 * 10**15 + 4
    assert nodes.locate(2 * 10**15 + 3) == (10**15, 3)
    assert nodes[10**15] == FOUR


def test_cards_are_divided_among_devices() -> None:
    assert [FOUR.card(position) for position in range(4)] == [0, 0, 1, 1]
    assert (TWO.ports, TWO.bandwidth) == (2, 12.0)
    assert [TWO.card(position) for position in range(2)] == [0, 1]


def test_an_island_of_all_devices_stays_one() -> None:
    whole = Node(("a",) * 8, per_island=8, per_switch=2)
    assert whole.with_devices(12).per_island == 12
    halves = Node(("a",) * 8, per_island=4, per_switch=2)
    assert [halves.with_devices(n).per_island for n in (4, 6, 12)] == [4, 2, 4]
    assert [halves.with_devices(n).per_switch for n in (4, 3)] == [2, 1]
