"""A topology whose nodes differ."""

from __future__ import annotations

from simulator.cluster.links import Link, Protocol
from simulator.cluster.nodes import Node, Nodes
from simulator.cluster.topology import Tier, Topology

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
