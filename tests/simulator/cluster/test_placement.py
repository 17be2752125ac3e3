"""Places of many ranks are those of each of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cluster.catalogue import load_preset
from simulator.cluster.links import Link, Protocol
from simulator.cluster.nodes import Node, Nodes
from simulator.cluster.placement import Placement
from simulator.cluster.resource import Resource
from simulator.cluster.topology import Tier, Topology

LINK = Link(10.0, {"simple": Protocol(1e-6, 1.0)})


@st.composite
def topologies(draw) -> Topology:
    """Nodes of two kinds, alone or with an island, switches and leaves."""
    nodes = [
        Node(
            devices=tuple("ab"[: draw(st.integers(1, 2))] * draw(st.integers(1, 3))),
            nics=draw(st.integers(1, 4)),
            nic_bandwidth=draw(st.sampled_from([1.0, 2.0])),
        )
        for _ in range(2)
    ]
    for number, node in enumerate(nodes):
        parts = [n for n in range(1, len(node.devices) + 1) if len(node.devices) % n == 0]
        island, switch = draw(st.sampled_from(parts)), draw(st.sampled_from(parts))
        nodes[number] = Node(node.devices, island, switch, node.nics, node.nic_bandwidth)
    order = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=5))
    tiers = (Tier(2, 3.0),) if draw(st.booleans()) else ()
    return Topology(Nodes.of(order), LINK, None, LINK, LINK, tiers)


@given(topologies())
def test_units_and_boundaries_are_those_of_each_rank(topology: Topology) -> None:
    ranks = range(topology.num_ranks)
    placement = Placement(topology, ranks)
    assert placement.units.T.tolist() == [list(topology.units(rank)) for rank in ranks]
    kinds = [(topology.kind(rank), topology.nodes[topology.node(rank)]) for rank in ranks]
    assert len(set(kinds)) == len(set(zip(kinds, placement.kinds.tolist(), strict=True)))
    for level in range(1, topology.num_levels):
        for rank in ranks:
            found = [
                (boundary.family, speed)
                for boundary in placement.boundary(level)
                for number, speed in [(boundary.numbers[rank], boundary.speeds[rank])]
                if number >= 0
            ]
            expected = topology.boundary(rank, level)
            assert [speed for _, speed in found] == [speed for _, speed in expected]
            for (family, _), (resource, _) in zip(found, expected, strict=True):
                assert resource.kind == family.kind


@given(topologies(), st.data())
def test_shares_are_sums_over_members(topology: Topology, data: st.DataObject) -> None:
    group = sorted(data.draw(st.sets(st.sampled_from(range(topology.num_ranks)), min_size=1)))
    units = [topology.units(rank) for rank in group]
    expected: dict[Resource, list[float]] = {}
    for level in range(topology.num_levels):
        members = Counter(unit[level] for unit in units)
        above = [(*unit, 0)[level + 1] for unit in units]
        for rank, unit, parent in zip(group, units, above, strict=True):
            mine = [u for u, a in zip(units, above, strict=True) if a == parent]
            if len({u[level] for u in mine}) > 1:
                for resource, _ in topology.boundary(rank, level):
                    row = expected.setdefault(resource, [0.0] * topology.num_levels)
                    row[level] += 1 / members[unit[level]]
    found = Placement(topology, group).shares()
    resources = topology.resources(found.names.tolist())
    assert len(resources) == len(set(resources))
    rows = dict(zip(resources, found.rows.tolist(), strict=True))
    assert rows == {name: pytest.approx(row) for name, row in expected.items()}


def test_ranks_need_not_be_in_order() -> None:
    topology = load_preset("dgx-a100-80gb").resized(nodes=2).topology
    ordered, mixed = (Placement(topology, ranks).shares() for ranks in ((0, 1, 8), (8, 0, 1)))
    assert sorted(topology.resources(ordered.names.tolist())) == sorted(
        topology.resources(mixed.names.tolist())
    )
    assert np.sort(ordered.rows, axis=0).tolist() == np.sort(mixed.rows, axis=0).tolist()


def test_devices_with_more_links_are_told_apart() -> None:
    topology = load_preset("dgx-v100").topology
    assert topology.mesh
    links = Placement(topology, range(8)).links().tolist()
    assert links == [sum(row) for row in topology.mesh]
    assert Placement(load_preset("dgx-h100").topology, range(8)).links().tolist() == [1] * 8
