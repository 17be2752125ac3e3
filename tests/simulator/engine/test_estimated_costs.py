"""What an instruction costs that was not measured: kernels, host, shared cores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator import lower, parse
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.program.operations import Op
from small_mlp import by_label, model
from table_costs import cores_of

A100 = "cluster.preset=dgx-a100-80gb"


@pytest.mark.parametrize(("dtype", "width", "peak"), [("bf16", 2, 8e12), ("fp32", 4, 1e12)])
def test_passes_by_hand(dtype: str, width: int, peak: float) -> None:
    """Four processors, tiles of 16: products in whole waves at half of the peak, 3 µs each;
    everything else at 80 % of 1 TB/s, 2 µs a kernel."""
    cluster = load_preset("dgx-a100-80gb")
    device = replace(
        cluster.device,
        processors=4,
        tile=16,
        matmul_s=3e-6,
        kernel_s=2e-6,
        launch_s=0.0,
        memory_bandwidth=1e12,
        memory_efficiency=0.8,
        matmul_efficiency=0.5,
        peak_flops={dtype: peak},
    )
    seconds = by_label(
        *model(f"workload.dtype={dtype}", cluster=replace(cluster, kinds={"a100": device}))
    )
    tokens = 4 * 8

    def matmul(m: int, n: int, k: int) -> float:
        waves = -(-(m // 16) * (n // 16) // 4)
        computing = waves * 4 * (2 * 16 * 16 * k) / (0.5 * peak)
        return 3e-6 + max(computing, (m * k + k * n + m * n) * width / 0.8e12)

    def others(nbytes: float, count: int) -> float:
        return nbytes / 0.8e12 + count * 2e-6

    into, out = (tokens, 256, 64), (tokens, 64, 256)
    # Read and written. The loss is in fp32: two operators, or four with copies of 16 bits.
    block = tokens * (3 * 64 + 2 * 256) * width
    loss, kernels = tokens * 64 * (5 * 4 if width == 2 else 3 * 4), 4 if width == 2 else 2
    forward = 2 * (matmul(*into) + matmul(*out)) + others(2 * block + loss, 4 + kernels)
    assert seconds["0F0"] == pytest.approx(forward, rel=1e-12)
    # Into the inputs, none for the batch, and into the weights; three tensors in place of two.
    backward = matmul(32, 64, 256) + 2 * matmul(32, 256, 64)
    backward += 2 * (matmul(64, 256, 32) + matmul(256, 64, 32))
    backward += others(2 * block + loss, 4 + kernels) + 0.5 * (2 * block + loss) / 0.8e12
    assert seconds["0B0"] == pytest.approx(backward, rel=1e-12)


def test_without_a_profile_nothing_counts_as_estimated() -> None:
    program, costs = model(A100)
    by_label(program, costs)
    assert costs.durations.notes() == []


def host(**fields: float) -> Cluster:
    return replace(load_preset("laptop"), issue_s=0.0, queue_s=0.0, wake_s=0.0, **fields)


def test_the_host_queues_communication_inside_compute() -> None:
    """A compute instruction costs 0.5 s for itself and 8 s for each communication queued since
    the compute before it."""
    settings = ("parallel.data=2", "parallel.bucket_mb=0.1", "parallel.microbatches=2")
    free = by_label(*model(*settings, cluster=host()))
    slow = by_label(*model(*settings, cluster=replace(host(), issue_s=0.5, queue_s=8.0)))
    issued = {label: round(slow[label] - free[label], 9) for label in slow}
    assert issued == {
        **dict.fromkeys(("0F0.0", "0F0.1", "0B0.1", "0B0.0"), 0.5),
        **dict.fromkeys(("0F1.0", "0F1.1", "0B1.1"), 0.5),
        "0REDUCE_GRAD.1": 0.0,
        "0B1.0": 8.5,
        "0REDUCE_GRAD.0": 0.0,
        "0STEP": 8.5,
    }


def test_only_what_waits_for_another_stream_wakes() -> None:
    program, costs = model("parallel.pipeline=2", cluster=replace(host(), wake_s=0.25))
    delays = {i.label: costs.delay(i) for i in program if i.task.op is not Op.OPTIMIZER_STEP}
    waiting = {"0SEND_F0", "0B0", "1F0", "1SEND_B0"}
    assert {label for label, delay in delays.items() if delay} == waiting | (
        {"0RECV_B0"} if next(i for i in program if i.label == "0RECV_B0").after else set()
    )
    assert set(delays.values()) == {0.0, 0.25}


def test_collectives_are_begun_and_awaited_by_who_runs_the_passes() -> None:
    """So nobody else is woken, and a profile has a time of its own for it."""
    for plan, wakes in (("tensor", 0.125), ("pipeline", 0.25)):
        settings = ("parallel.pipeline=1", f"parallel.{plan}=2", "parallel.microbatches=1")
        for collective_s, expected in ((0.125, wakes), (None, 0.25)):
            profile = Profile({"cores": 2}, wake_s=0.25, wake_collective_s=collective_s)
            cluster = replace(host(), wake_s=0.25, profile=profile)
            program, costs = model(*settings, cluster=cluster)
            assert {costs.delay(i) for i in program if i.after} == {expected}


def two_hosts(**fields: float) -> Cluster:
    return host(**fields).resized(nodes=2, devices_per_node=2)


def test_cores_are_shared_per_node() -> None:
    cluster = two_hosts(transfer_cores=0.5)
    program, costs = model("parallel.pipeline=2", "parallel.data=2", cluster=cluster)
    assert costs.capacities == {cores_of(0): 2, cores_of(1): 2}
    demands = {}
    for members in program.meetings:
        demands[tuple(member.rank for member in members)] = dict(costs.demand(members))
    assert demands == {
        (0, 1): {cores_of(0): 1.0},  # a pipeline message inside a node
        (1, 0): {cores_of(0): 1.0},
        (2, 3): {cores_of(1): 1.0},
        (3, 2): {cores_of(1): 1.0},
        (0, 2): {cores_of(0): 0.5, cores_of(1): 0.5},  # gradients between nodes
        (1, 3): {cores_of(0): 0.5, cores_of(1): 0.5},
    }
    compute = program.ranks[3][-1]
    assert costs.demand((compute,)) == ((cores_of(1), 1.0),)


def test_messages_cross_links_and_networks() -> None:
    """Ranks 7 and 8 sit on different nodes, 0 and 1 on one island."""
    program, costs = model(A100, "workload.layers=9", "parallel.pipeline=9")
    nbytes = 4 * 8 * 64 * 4
    times = {(i.rank, i.task.peer): costs.seconds(i) for i in program if i.task.op is Op.SEND}
    cluster = costs.durations.cluster
    for pair, link, bandwidth in (
        ((0, 1), cluster.topology.island, 300e9),
        ((7, 8), cluster.topology.network, 25e9),
    ):
        assert link
        alone = min(
            p.latency_s + nbytes / (bandwidth * p.efficiency) for p in link.protocols.values()
        )
        alone += cluster.library.start_s + nbytes / cluster.library.copy_bandwidth
        assert times[pair] == times[pair[::-1]] == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("preset", ["dgx-h100", "laptop"])
def test_instructions_of_one_number_have_equal_demands(preset: str) -> None:
    parallel = {"pipeline": 2, "data": 2, "tensor": 2, "microbatches": 4, "zero": 1}
    workload = {"model": "gpt", "layers": 4, "global_batch": 16}
    sets = {"workload": workload, "parallel": parallel, "cluster": {"preset": preset}}
    experiment = parse(sets)
    program = lower(experiment)
    costs = costs_of(program, experiment, resolve(experiment))
    found: dict[int, object] = {}
    for number, instruction in zip(costs.likeness(program), program, strict=True):
        of_this = costs.demand((instruction,)), costs.weight((instruction,))
        assert found.setdefault(number, of_this) == of_this
    assert len(found) < len(program)
