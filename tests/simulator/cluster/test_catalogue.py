"""Presets in their units."""

from __future__ import annotations

import re

import pytest

from simulator import ExperimentError, load
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.preset_files import preset_names
from simulator.cluster.resolve import resolve
from simulator.experiment.workload import DTYPE_BYTES


def cluster(*overrides: str) -> Cluster:
    return resolve(load(None, list(overrides)))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_is_of_this_world(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.source
    assert set(preset.device.peak_flops) == set(DTYPE_BYTES)
    assert all(1e9 < peak < 1e17 for peak in preset.device.peak_flops.values())
    assert 1e9 < preset.device.memory_bandwidth < 1e14
    assert 1e9 < preset.device.memory_bytes < 1e13
    assert 0 < preset.device.matmul_efficiency <= 1
    assert 0 < preset.device.memory_efficiency <= 1
    topology = preset.topology
    for link in filter(None, (topology.island, topology.pcie, topology.network)):
        assert 1e-7 < link.latency_s < 1e-2
        assert all(0 < protocol.efficiency <= 1 for protocol in link.protocols.values())
    assert 1e8 < topology.nodes.first.bandwidth < 1e12
    # a host of CPU ranks shares its cores, a GPU does not
    assert (preset.cores is None) == (preset.device.kind == "gpu")


def test_units_of_the_a100_preset() -> None:
    preset = load_preset("dgx-a100-80gb")
    assert (preset.nodes, preset.devices_per_node) == (1, 8)
    assert preset.device.memory_bytes == 80 * 2**30
    assert preset.device.memory_bandwidth == pytest.approx(2.039e12)
    assert preset.device.peak_flops["bf16"] == pytest.approx(312e12)
    assert preset.device.launch_s == pytest.approx(5e-6)
    assert preset.topology.island.bandwidth == 300e9
    assert preset.topology.nodes.first.nic_bandwidth == 25e9  # 200 Gbit/s
    assert preset.topology.island.latency_s == pytest.approx(0.651e-6)


def test_units_of_the_laptop_preset() -> None:
    preset = load_preset("laptop")
    assert preset.cores == 2
    assert 1e-6 < preset.issue_s < 1e-3
    assert 1e-6 < preset.wake_s < 1e-3
    assert 0 < preset.transfer_cores <= 1


@pytest.mark.parametrize("name", ["dgx", "", "../laptop", "tower"])
def test_unknown_presets_are_refused(name: str) -> None:
    value, hint = re.escape(repr(name)), r"(did you mean '[a-z0-9-]+'\? )?"
    message = f"^cluster.preset = {value}: {hint}allowed: {', '.join(preset_names())}"
    with pytest.raises(ExperimentError, match=message):
        cluster(f"cluster.preset={name}")
