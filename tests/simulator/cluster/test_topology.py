"""Who is joined to whom: units, paths, rings of a mesh."""

from __future__ import annotations

import pytest

from simulator.cluster.catalogue import load_preset
from simulator.cluster.links import Link
from simulator.cluster.nodes import Node, Nodes
from simulator.cluster.resource import Resource
from simulator.cluster.topology import (
    BRIDGE,
    LANE,
    NODE,
    PORT,
    Topology,
)
from uneven_topology import WAY, two_kinds


def test_ranks_are_placed_in_order_on_uneven_nodes() -> None:
    topology = two_kinds()
    assert topology.num_devices == 12
    assert [topology.node(rank) for rank in range(12)] == [0] * 4 + [1] * 2 + [2] * 2 + [3] * 4
    assert "".join(topology.kind(rank) for rank in range(12)) == "aabbbbbbaabb"
    for rank in (-1, 12):
        with pytest.raises(ValueError, match="there are 12"):
            topology.node(rank)


def texts(uses: list[tuple[Resource, float]]) -> list[tuple[str, float]]:
    return [(str(resource), speed) for resource, speed in uses]


def test_units_and_boundaries() -> None:
    topology = two_kinds()
    assert topology.units(3) == (3, 3, 2, 0, 0, 0, 0)  # itself, device, island, switch, node, …
    assert topology.units(11) == (11, 11, 10, 8, 3, 1, 0)
    assert texts(topology.boundary(3, PORT)) == [("island:3", 100.0)]
    assert texts(topology.boundary(3, LANE)) == [("pcie:3", 20.0)]
    assert texts(topology.boundary(3, BRIDGE)) == [("bridge:0", 20.0)]
    assert texts(topology.boundary(3, NODE)) == [("pcie:3", 20.0), ("nic:0.1", 10.0)]
    assert texts(topology.boundary(3, NODE + 1)) == [("uplink:1.0", 2 * 20.0 / 2)]


@pytest.mark.parametrize(
    ("pair", "level", "names"),
    [
        ((0, 1), PORT, {"out:island:0", "in:island:1"}),
        ((0, 2), LANE, {"out:pcie:0", "in:pcie:2"}),  # behind one switch
        ((1, 4), NODE, {"out:pcie:1", "out:nic:0.0", "in:pcie:4", "in:nic:1.0"}),
        (
            (1, 6), NODE + 1,
            {"out:pcie:1", "out:nic:0.0", "out:uplink:1.0",
             "in:pcie:6", "in:nic:2.0", "in:uplink:1.1"},
        ),
    ],
)  # fmt: skip
def test_paths(pair: tuple[int, int], level: int, names: set[str]) -> None:
    found, path = two_kinds().path(*pair)
    assert found == level
    assert {str(resource) for resource, _ in path} == names


def test_each_device_with_a_root_port_of_its_own_has_no_bridge() -> None:
    node = Node(("a",) * 4, per_island=2)
    topology = Topology(Nodes.of([node]), Link(100.0, WAY), None, Link(20.0, WAY))
    level, path = topology.path(0, 2)
    assert (level, texts(path)) == (BRIDGE, [("out:pcie:0", 20.0), ("in:pcie:2", 20.0)])


def test_in_a_mesh_devices_without_a_link_use_pcie() -> None:
    topology = load_preset("dgx-v100").topology
    level, path = topology.path(0, 3)
    assert (level, texts(path)) == (PORT, [("out:island:0", 50e9), ("in:island:3", 50e9)])
    level, path = topology.path(0, 7)
    assert (level, texts(path)[0]) == (LANE, ("out:pcie:0", 15.75e9))
