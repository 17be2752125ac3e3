"""Flows that overlap share links; a folded program shares them as the whole one does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from simulator import Experiment, load, lower, predict
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.resolve import resolve
from simulator.cluster.resource import ResourceKind
from simulator.cluster.topology import Tier
from simulator.engine.costs import costs_of
from simulator.engine.engine import simulate
from simulator.engine.replica_folding import folding_of
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task

MB = 10**6
MODEL = [
    "workload.layers=8",
    "workload.hidden=256",
    "workload.heads=8",
    "workload.sequence=64",
    "workload.dtype=bf16",
]


def cluster_of(preset: str, **sizes: Any) -> Cluster:
    return load_preset(preset).resized(**sizes)


def messages(*pairs: tuple[int, int], nbytes: int = 100 * MB) -> Program:
    """Every pair sends and receives one message, all at once."""
    ranks: list[list[Instruction]] = [[] for _ in range(1 + max(map(max, pairs)))]
    for source, target in pairs:
        payload = {"tensor": f"{source}>{target}", "nbytes": nbytes}
        send = Task(Op.SEND, 0, stream=Stream.send(target), peer=target, **payload)
        receive = Task(Op.RECV, 0, stream=Stream.recv(source), peer=source, **payload)
        ranks[source].append(Instruction(send))
        ranks[target].append(Instruction(receive))
    return Program(ranks)


def seconds(program: Program, cluster: Cluster) -> float:
    experiment = load(None, ["workload.model=gpt"])
    costs = costs_of(program, experiment, cluster)
    return float(simulate(program, costs).end.max())


def ratio(cluster: Cluster, *pairs: tuple[int, int]) -> float:
    """How much longer all `pairs` together take than the first alone."""
    return seconds(messages(*pairs), cluster) / seconds(messages(pairs[0]), cluster)


def test_two_flows_on_one_network_card_take_twice_as_long() -> None:
    """DGX-1: devices 0 and 1 have one card, 2 has another. Latency is not shared."""
    cluster = cluster_of("dgx-v100", nodes=3)
    assert ratio(cluster, (0, 8), (1, 16)) == pytest.approx(2, rel=0.03)
    assert ratio(cluster, (0, 8), (2, 10)) == 1
    assert ratio(cluster, (0, 8), (8, 0)) == 1  # each way
    assert ratio(cluster, (0, 8), (2, 9)) == pytest.approx(2, rel=0.03)  # one card receives


def test_devices_with_a_card_each_do_not_slow_each_other() -> None:
    assert (
        ratio(cluster_of("dgx-a100-80gb", nodes=2), *((rank, rank + 8) for rank in range(8))) == 1
    )


def test_an_island_port_has_two_ways() -> None:
    cluster = cluster_of("dgx-a100-80gb")
    assert ratio(cluster, (0, 1), (1, 0)) == 1
    # a message alone also waits for copies into buffers, so two do not take quite twice as long
    assert 1.2 < ratio(cluster, (0, 1), (0, 2)) < 2
    assert ratio(cluster, (0, 1), (2, 3)) == 1


@pytest.mark.parametrize("oversubscription", [1, 2, 4])
def test_an_oversubscribed_uplink(oversubscription: int) -> None:
    """Two nodes a leaf, eight cards each: sixteen flows share the uplinks of the leaf."""
    cluster = cluster_of("dgx-a100-80gb", nodes=4)
    tier = Tier(nodes_per_switch=2, oversubscription=float(oversubscription))
    cluster = replace(cluster, topology=replace(cluster.topology, tiers=(tier,)))
    across = [(rank, rank + 16) for rank in range(16)]
    assert ratio(cluster, *across) == pytest.approx(oversubscription, rel=0.06)
    below = [(rank, rank + 8) for rank in range(8)]
    assert ratio(cluster, *below) == 1


def test_bridges_are_shared_by_all_behind_a_switch() -> None:
    cluster = cluster_of("a100-pcie")
    assert ratio(cluster, (0, 4), (2, 6)) == pytest.approx(2, rel=0.06)
    assert ratio(cluster, (0, 2), (4, 6)) == 1


def test_what_nothing_can_slow_is_left_out() -> None:
    """One message a card; and collectives of one communicator, which take turns."""
    experiment = load(None, [*MODEL, "parallel.pipeline=8", "cluster.preset=dgx-a100-80gb"])
    program = lower(experiment)
    assert costs_of(program, experiment, resolve(experiment)).capacities == {}
    experiment = load(
        None,
        [*MODEL, "parallel.pipeline=1", "parallel.tensor=4", "cluster.preset=dgx-a100-80gb"],
    )
    costs = costs_of(lower(experiment), experiment, resolve(experiment))
    assert not any(resource.direction for resource in costs.capacities)


def test_a_pass_beside_a_collective_is_slower() -> None:
    """Only that pass: the share that a transfer takes of the device is in both."""
    experiment = load(
        None,
        [
            *(*MODEL, "parallel.pipeline=1", "parallel.data=2", "parallel.microbatches=1"),
            *("parallel.bucket_mb=1", "cluster.preset=dgx-a100-80gb"),
        ],
    )
    prediction = predict(experiment)
    program, timeline = prediction.program, prediction.timeline
    costs = costs_of(program, experiment, prediction.cluster)
    stretched = {
        i.label: (timeline.end[i.uid] - timeline.start[i.uid]) / costs.seconds(i)
        for i in program.ranks[0]
    }
    last = max(int(label[4:]) for label in stretched if label.startswith("0B0."))
    assert stretched[f"0B0.{last}"] == pytest.approx(1)  # no gradient is ready yet
    assert stretched["0F0.0"] == pytest.approx(1)
    share = prediction.cluster.library.transfer_share
    assert 1 < stretched["0B0.0"] <= 1 + share + 1e-9


@pytest.mark.parametrize(
    ("preset", "parallel"),
    [
        ("dgx-v100", ("data=2", "pipeline=2", "tensor=8", "sequence_parallel=true")),
        ("dgx2", ("data=16", "pipeline=2", "bucket_mb=0.5")),
        ("a100-pcie", ("data=4", "pipeline=4", "tensor=2", "bucket_mb=0.5")),
        ("a100-pcie", ("data=8", "pipeline=2", "zero=3", "zero_group=4", "bucket_mb=0.1")),
        ("a100-pcie", ("data=8", "pipeline=2", "zero=2", "zero_group=2", "bucket_mb=0.1")),
        ("dgx-h100", ("data=4", "pipeline=2", "context=4")),
        ("aws-p4de", ("data=4", "pipeline=4", "tensor=4", "zero=1")),
    ],
)
def test_folded_is_unfolded_with_contention(preset: str, parallel: tuple[str, ...]) -> None:
    settings = [f"parallel.{setting}" for setting in ("microbatches=4", *parallel)]
    experiment = load(None, [*MODEL, f"cluster.preset={preset}", *settings])
    check_folded_is_unfolded(experiment, resolve(experiment))


@pytest.mark.parametrize(
    "parallel",
    [("data=4", "pipeline=4", "tensor=2"), ("data=2", "pipeline=4", "tensor=4", "zero=1")],
)
def test_folded_is_unfolded_below_oversubscribed_switches(parallel: tuple[str, ...]) -> None:
    """Groups on different nodes share the uplinks of their leaf."""
    settings = [f"parallel.{setting}" for setting in ("microbatches=4", *parallel)]
    large = ("workload.hidden=2048", "workload.sequence=1024")
    preset = ("cluster.preset=dgx-h100", "cluster.nodes=4")
    experiment = load(None, [*MODEL, *large, *preset, *settings])
    cluster = resolve(experiment).resized(nodes=16, devices_per_node=2)
    tier = Tier(nodes_per_switch=4, oversubscription=8.0)
    cluster = replace(cluster, topology=replace(cluster.topology, tiers=(tier,)))
    check_folded_is_unfolded(experiment, cluster)
    found = costs_of(lower(experiment), experiment, cluster).capacities
    assert any(resource.kind is ResourceKind.UPLINK for resource in found)


def check_folded_is_unfolded(experiment: Experiment, cluster: Cluster) -> Program:
    folding = folding_of(experiment, cluster)
    assert folding is not None
    whole = predict(experiment, cluster, lower(experiment))
    folded = predict(experiment, cluster, lower(experiment, folding.list_of))
    costs = costs_of(whole.program, experiment, cluster)
    assert costs.capacities
    assert folded.program.is_folded
    for row, rank in enumerate(folded.program.members):
        mine = folded.recorded.end[folded.recorded.rank == row]
        theirs = whole.timeline.end[whole.timeline.rank == rank]
        assert mine == pytest.approx(theirs, rel=1e-9)
    assert folded.iteration_time_s == pytest.approx(whole.iteration_time_s, rel=1e-9)
    return folded.program


@pytest.mark.parametrize(
    ("parallel", "lists"),
    [
        # DGX-1 has two links between devices 0 and 4, one between 2 and 6
        (("data=8", "pipeline=2", "tensor=4"), 4),
        # three ranks a replica and two a card: replica 0 has a card and a half, as has replica 1,
        # but divided otherwise
        (("data=16", "pipeline=3", "tensor=1"), 24),
    ],
)
def test_peers_that_do_not_share_alike_are_of_several_classes(
    parallel: tuple[str, ...], lists: int
) -> None:
    settings = [f"parallel.{setting}" for setting in ("microbatches=4", *parallel)]
    experiment = load(None, [*MODEL, "cluster.preset=dgx-v100", *settings])
    found = check_folded_is_unfolded(experiment, resolve(experiment))
    assert found.num_ranks == lists
