"""The cluster that an experiment asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator import ExperimentError, load, predict
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import save_profile
from simulator.cluster.resolve import from_profile, resolve
from simulator.cluster.timing import Timing
from simulator.program.operations import Op


def cluster(*overrides: str) -> Cluster:
    return resolve(load(None, list(overrides)))


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
    points = {Op.ALL_REDUCE: {2: [(8, Timing.certain(1e-3))]}}
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
        collectives={Op.ALL_REDUCE: {2: [(0, Timing.certain(2.0))]}},
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
    assert found.collective(Op.ALL_REDUCE, (3, 4), 999).mean_s == 2.0
    assert found.nodes == 1
    gpu = from_profile(Profile({"cores": 6}, device="cuda"))
    assert (gpu.cores, gpu.device.kind) == (None, "gpu")


def test_nodes_that_nobody_uses_cost_nothing() -> None:
    few, many = (
        predict(load(None, ["cluster.preset=dgx-h100", f"cluster.nodes={nodes}"]))
        for nodes in (1, 10**12)
    )
    assert many.cluster.nodes == 10**12
    assert np.array_equal(many.timeline.end, few.timeline.end)


@pytest.mark.parametrize(
    ("preset", "devices", "allowed"),
    [("dgx-v100", 9, 8), ("dgx-v100", 16, 8), ("dgx-h100", 10**12, 2**20)],
)
def test_nodes_that_cannot_be_built_are_refused(preset: str, devices: int, allowed: int) -> None:
    plan = [f"cluster.preset={preset}", f"cluster.devices_per_node={devices}"]
    with pytest.raises(ExperimentError) as error:
        cluster(*plan)
    message = str(error.value)
    assert message.startswith(f"cluster.devices_per_node = {devices}: ")
    assert message.endswith(f"allowed: 1 to {allowed}")


def test_part_of_a_mesh_is_a_mesh() -> None:
    half = cluster("cluster.preset=dgx-v100", "cluster.devices_per_node=4")
    whole = cluster("cluster.preset=dgx-v100")
    group = (0, 1, 2, 3)
    assert half.collective(Op.ALL_REDUCE, group, 10**8) == whole.collective(
        Op.ALL_REDUCE, group, 10**8
    )


@pytest.mark.parametrize(
    ("ranks", "sharing", "devices"), [(1, 4, 1), (4, 4, 1), (6, 4, 2), (8, 4, 2), (8, 1, 8)]
)
def test_devices_in_use_count_whole(ranks: int, sharing: int, devices: int) -> None:
    """FLOP/s of all ranks are those of the devices that any of them is on."""
    found = cluster(
        "cluster.preset=dgx2", f"cluster.ranks_per_device={sharing}", "parallel.pipeline=1",
        f"parallel.data={ranks}",
    )  # fmt: skip
    peak = found.device.peak_flops["fp32"]
    assert found.peak_flops("fp32", ranks) == pytest.approx(devices * peak / ranks)


@pytest.mark.parametrize("sharing", [1, 2, 4])
def test_nobody_uses_more_than_a_device_can(sharing: int) -> None:
    plan = ["workload.model=vgg16", "parallel.pipeline=1", "parallel.microbatches=1"]
    shared = [f"cluster.ranks_per_device={sharing}", "cluster.preset=dgx2"]
    prediction = predict(load(None, [*plan, *shared]))
    assert 0.3 < prediction.mfu <= 1


def test_a_profile_of_several_hosts_knows_which_ranks_are_on_one() -> None:
    """Two ranks a host: what is sent on a host and between hosts takes what each took."""
    here, there = [(8, Timing.certain(1.0))], [(8, Timing.certain(5.0))]
    profile = Profile(
        {"cores": 2, "hostname": "first"},
        messages=here,
        collectives={Op.ALL_REDUCE: {2: here}},
        remote_messages=there,
        remote_collectives={Op.ALL_REDUCE: {2: there}},
        ranks_per_host=2,
    )
    found = resolve(load(None, ["parallel.data=4"]), profile)
    assert (found.nodes, found.devices_per_node) == (4, 2)
    assert found.message(0, 1, 8).mean_s == 1.0
    assert found.message(1, 2, 8).mean_s == 5.0
    assert found.collective(Op.ALL_REDUCE, (2, 3), 8).mean_s == 1.0
    assert found.collective(Op.ALL_REDUCE, (0, 2), 8).mean_s == 5.0
    alone = resolve(load(None, ["parallel.data=4"]), Profile(profile.machine, messages=here))
    assert (alone.nodes, alone.message(1, 2, 8).mean_s) == (1, 1.0)


def test_a_shaped_network_is_farther_and_gloo_has_its_own_library() -> None:
    preset = "cluster.preset=aws-p3-2xlarge"
    far = cluster(preset, "cluster.node_latency_us=5000", "run.backend=gloo")
    near = cluster(preset)
    assert far.topology.network and near.topology.network
    assert far.topology.network.latency_s == near.topology.network.latency_s + 5e-3
    assert (near.library.connections, far.library.connections) == (16, 1)
    assert far.library.algorithms == ("piecewise-ring", "pairwise")
    assert far.notes == near.notes == []


def test_a_cluster_that_says_nothing_of_gloo_has_a_note() -> None:
    (note,) = cluster("cluster.preset=dgx-h100", "run.backend=gloo").notes
    assert note.startswith("cluster dgx-h100 does not say what transfers take with run.backend")
    assert cluster("run.backend=gloo").notes == []  # the laptop has nothing else


def test_distance_needs_a_network_that_is_not_measured() -> None:
    with pytest.raises(ExperimentError, match=r"^cluster.node_latency_us = 5: the transfers of"):
        from_profile(Profile({"cores": 3, "hostname": "here"})).farther(5)
    alone = replace(load_preset("laptop").topology, network=None)
    with pytest.raises(ExperimentError, match=r"laptop has no .network.: one node only"):
        replace(load_preset("laptop"), topology=alone).farther(5)
