"""How groups of ranks lie in a topology."""

from __future__ import annotations

from simulator.cluster.catalogue import load_preset
from simulator.cluster.extent import extent_of
from simulator.cluster.links import Link, Protocol
from simulator.cluster.nodes import Node, Nodes
from simulator.cluster.topology import (
    NODE,
    PORT,
    Tier,
    Topology,
)

WAY = {"Simple": Protocol(1e-6, 0.5)}


def two_kinds() -> Topology:
    """Nodes of four and of two devices; two nodes a leaf, four a spine."""
    big = Node(("a",) * 2 + ("b",) * 2, per_island=2, per_switch=4, nics=2, nic_bandwidth=10.0)
    small = Node(("b",) * 2, per_island=2, per_switch=2, nics=1, nic_bandwidth=10.0)
    return Topology(
        Nodes(((big, 1), (small, 2), (big, 1))),
        *(Link(100.0, WAY), None, Link(20.0, WAY), Link(0.0, WAY)),
        tiers=(Tier(2, 2.0), Tier(4, 1.0)),
    )


def test_extent_of_an_uneven_group() -> None:
    extent = extent_of(two_kinds(), (0, 1, 2, 4))
    assert extent.counts == (4, 4, 3, 2, 2, 1, 1, 1)
    assert extent.members[NODE] == 3
    assert not extent.even
    assert extent_of(two_kinds(), (0, 1, 4, 5)).even


def test_five_devices_of_a_cube_have_no_ring_and_go_round_by_pcie() -> None:
    topology = load_preset("dgx-v100").topology
    assert topology.pcie and topology.island
    ring, tree = (extent_of(topology, (0, 1, 2, 3, 4), way) for way in ("ring", "tree"))
    assert ring.load[:, PORT].max() == 1 / topology.pcie.bandwidth
    assert tree.load[:, PORT].max() == 1 / (2 * topology.island.bandwidth)
