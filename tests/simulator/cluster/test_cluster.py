"""What an experiment changes in a cluster: nodes, devices, bandwidth."""

from __future__ import annotations

import pytest

from simulator import load
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.resolve import resolve
from simulator.cluster.resource import Resource, ResourceKind
from simulator.cluster.topology import NODE


def cluster(*overrides: str) -> Cluster:
    return resolve(load(None, list(overrides)))


def test_fewer_devices_per_node_share_its_nics() -> None:
    preset = load_preset("dgx-h100")
    half = cluster("cluster.preset=dgx-h100", "cluster.devices_per_node=4")
    card = Resource(ResourceKind.NIC, 0, 3)
    assert half.topology.boundary(3, NODE)[-1] == (card, 2 * 50e9)
    assert preset.topology.boundary(3, NODE)[-1] == (card, 50e9)
    assert half.topology.island == preset.topology.island


def test_node_bandwidth_is_of_the_whole_node() -> None:
    plan = ["parallel.data=4", "parallel.pipeline=1", "cluster.devices_per_node=2"]
    slow, fast = (cluster(*plan, f"cluster.node_bandwidth_gbit={gbit}") for gbit in (8, 16))
    assert slow.topology.nodes.first.bandwidth == 1e9
    assert fast.topology.nodes.first.bandwidth == 2e9
    assert slow.topology.island == fast.topology.island == load_preset("laptop").topology.island


@pytest.mark.parametrize(("name", "gbit"), [("dgx-a100-80gb", 1600), ("dgx-h100", 3200)])
def test_a_presets_own_node_bandwidth_changes_nothing(name: str, gbit: int) -> None:
    preset = f"cluster.preset={name}"
    assert cluster(preset, f"cluster.node_bandwidth_gbit={gbit}") == cluster(preset)
