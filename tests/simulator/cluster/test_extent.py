"""How groups of ranks lie in a topology."""

from __future__ import annotations

from simulator.cluster.catalogue import load_preset
from simulator.cluster.extent import extent_of
from simulator.cluster.topology import (
    NODE,
    PORT,
)
from uneven_topology import two_kinds


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
