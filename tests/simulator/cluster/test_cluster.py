"""Presets in their units, and what an experiment changes in them."""

from __future__ import annotations

import re

import pytest

from simulator import ExperimentError, load
from simulator.cluster.catalogue import load_preset, preset_names
from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile, Timing
from simulator.cluster.profile_file import save_profile
from simulator.cluster.resolve import from_profile, resolve
from simulator.cluster.topology import NODE
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
    assert 1e8 < topology.nodes[0].bandwidth < 1e12
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
    assert preset.topology.nodes[0].nic_bandwidth == 25e9  # 200 Gbit/s
    assert preset.topology.island.latency_s == pytest.approx(0.651e-6)


def test_units_of_the_laptop_preset() -> None:
    preset = load_preset("laptop")
    assert preset.cores == 2
    assert 1e-6 < preset.issue_s < 1e-3
    assert 1e-6 < preset.wake_s < 1e-3
    assert 0 < preset.transfer_cores <= 1


@pytest.mark.parametrize("name", ["dgx", "", "../laptop", "LAPTOP"])
def test_unknown_presets_are_refused(name: str) -> None:
    message = f"^cluster.preset = {re.escape(repr(name))}: allowed: {', '.join(preset_names())}"
    with pytest.raises(ExperimentError, match=message):
        cluster(f"cluster.preset={name}")


def test_the_laptop_is_the_fallback() -> None:
    assert cluster().name == "laptop"
    mine = Profile({"cores": 3, "hostname": "here"})
    assert resolve(load(None), mine).name == "profile of here"
    assert resolve(load(None, ["cluster.preset=dgx-h100"]), mine).name == "dgx-h100"


def test_nodes_grow_with_the_plan() -> None:
    preset = "cluster.preset=dgx-h100"
    assert cluster(preset).nodes == 1
    assert cluster(preset, "parallel.data=17", "parallel.pipeline=1").nodes == 3
    assert cluster(preset, "cluster.nodes=5").nodes == 5


def test_ranks_of_one_host_share_it_however_many() -> None:
    grown = cluster("parallel.data=8", "parallel.pipeline=1")
    assert (grown.nodes, grown.devices_per_node, grown.cores) == (1, 8, 2)
    split = cluster("parallel.data=8", "parallel.pipeline=1", "cluster.devices_per_node=2")
    assert (split.nodes, split.devices_per_node, split.node(5)) == (4, 2, 2)


def test_fewer_devices_per_node_share_its_nics() -> None:
    preset = load_preset("dgx-h100")
    half = cluster("cluster.preset=dgx-h100", "cluster.devices_per_node=4")
    assert half.topology.boundary(3, NODE)[-1] == ("nic:0.3", 2 * 50e9)
    assert preset.topology.boundary(3, NODE)[-1] == ("nic:0.3", 50e9)
    assert half.topology.island == preset.topology.island


def test_node_bandwidth_is_of_the_whole_node() -> None:
    plan = ["parallel.data=4", "parallel.pipeline=1", "cluster.devices_per_node=2"]
    slow, fast = (cluster(*plan, f"cluster.node_bandwidth_gbit={gbit}") for gbit in (8, 16))
    assert slow.topology.nodes[0].bandwidth == 1e9
    assert fast.topology.nodes[0].bandwidth == 2e9
    assert slow.topology.island == fast.topology.island == load_preset("laptop").topology.island


@pytest.mark.parametrize(("name", "gbit"), [("dgx-a100-80gb", 1600), ("dgx-h100", 3200)])
def test_a_presets_own_node_bandwidth_changes_nothing(name: str, gbit: int) -> None:
    preset = f"cluster.preset={name}"
    assert cluster(preset, f"cluster.node_bandwidth_gbit={gbit}") == cluster(preset)


@pytest.mark.parametrize(
    ("overrides", "ranks", "devices", "nodes"),
    [
        (["cluster.nodes=1", "cluster.devices_per_node=2", "parallel.data=3"], 6, 2, 3),
        (["cluster.preset=dgx-h100", "cluster.nodes=2", "parallel.data=9"], 18, 16, 3),
    ],
)
def test_too_few_devices(overrides: list[str], ranks: int, devices: int, nodes: int) -> None:
    with pytest.raises(ExperimentError) as error:
        cluster(*overrides)
    message = str(error.value)
    assert "\n" not in message
    assert f" = {ranks} ranks; " in message
    assert f" = {devices} devices; raise cluster.nodes to {nodes}" in message
    assert cluster(*overrides, f"cluster.nodes={nodes}").nodes == nodes  # the advice is good


def test_measured_collectives_have_no_other_algorithm(tmp_path) -> None:
    points = {"ALL_REDUCE": {2: [(8, Timing.certain(1e-3))]}}
    path = tmp_path / "profile.json"
    save_profile(Profile({"cores": 2, "hostname": "here"}, collectives=points), path)
    given = [f"cluster.profile={path}", "parallel.data=2", "parallel.pipeline=1"]
    assert cluster(*given).profile is not None
    with pytest.raises(ExperimentError, match=r"'ring': the collectives of .* here are measured"):
        cluster(*given, "cluster.algorithm=ring")


def test_a_profile_is_a_cluster(tmp_path) -> None:
    profile = Profile(
        {"cores": 6, "hostname": "box", "date": "today"},
        messages=[(0, Timing.certain(0.5)), (100, Timing.certain(1.5))],
        collectives={"ALL_REDUCE": {2: [(0, Timing.certain(2.0))]}},
        issue_s=0.25,
        wake_s=0.125,
        transfer_cores=0.75,
        peak_flops={"fp32": 7.0},
    )
    save_profile(profile, tmp_path / "p.json")
    found = cluster(f"cluster.profile={tmp_path / 'p.json'}", "parallel.data=50")
    assert found.name == "profile of box"
    assert (found.cores, found.issue_s, found.wake_s, found.transfer_cores) == (
        6,
        0.25,
        0.125,
        0.75,
    )
    assert found.device.peak_flops["fp32"] == 7.0
    assert found.device.peak_flops["bf16"] == load_preset("laptop").device.peak_flops["bf16"]
    assert found.message(0, 1, 50).mean_s == 1.0
    assert found.collective("ALL_REDUCE", (3, 4), 999).mean_s == 2.0
    assert found.nodes == 1
    gpu = from_profile(Profile({"cores": 6}, device="cuda"))
    assert (gpu.cores, gpu.device.kind) == (None, "gpu")
