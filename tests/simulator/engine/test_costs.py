"""What an instruction costs: kernels, measurement, host, shared cores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator import Experiment, Program, load, lower, predict
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import from_profile, resolve
from simulator.cluster.timing import Timing
from simulator.cluster.transfer_share import transfer_share
from simulator.engine.contention import fair_rates
from simulator.engine.costs import CostModel, pass_key
from simulator.experiment.workload import Workload
from simulator.program.operations import COMMUNICATION, Op
from simulator.workloads.describe import describe

MLP = [
    "workload.model=mlp",
    "workload.layers=2",
    "workload.hidden=64",
    "workload.sequence=8",
    "parallel.pipeline=1",
    "parallel.microbatches=1",
]
A100 = "cluster.preset=dgx-a100-80gb"

FP32, BF16 = Workload(dtype="fp32"), Workload(dtype="bf16")


def model(*overrides: str, cluster: Cluster | None = None) -> tuple[Program, CostModel]:
    experiment = load(None, [*MLP, *overrides])
    program = lower(experiment)
    return program, CostModel(program, experiment, cluster or resolve(experiment))


def by_label(program: Program, costs: CostModel, rank: int = 0) -> dict[str, float]:
    return {i.label: costs.seconds(i) for i in program.ranks[rank]}


@pytest.mark.parametrize(("dtype", "width", "peak"), [("bf16", 2, 8e12), ("fp32", 4, 1e12)])
def test_passes_by_hand(dtype: str, width: int, peak: float) -> None:
    """Four processors, tiles of 16: products in whole waves at half of the peak, 3 µs each;
    everything else at 80 % of 1 TB/s, 2 µs a kernel."""
    cluster = load_preset("dgx-a100-80gb")
    device = replace(
        cluster.device,
        processors=4,
        tile=16,
        product_s=3e-6,
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

    def product(m: int, n: int, k: int) -> float:
        waves = -(-(m // 16) * (n // 16) // 4)
        computing = waves * 4 * (2 * 16 * 16 * k) / (0.5 * peak)
        return 3e-6 + max(computing, (m * k + k * n + m * n) * width / 0.8e12)

    def others(nbytes: float, count: int) -> float:
        return nbytes / 0.8e12 + count * 2e-6

    into, out = (tokens, 256, 64), (tokens, 64, 256)
    # Read and written. The loss is in fp32: two operators, or four with copies of 16 bits.
    block = tokens * (3 * 64 + 2 * 256) * width
    loss, kernels = tokens * 64 * (5 * 4 if width == 2 else 3 * 4), 4 if width == 2 else 2
    forward = 2 * (product(*into) + product(*out)) + others(2 * block + loss, 4 + kernels)
    assert seconds["0F0"] == pytest.approx(forward, rel=1e-12)
    # Into the inputs, none for the batch, and into the weights; three tensors in place of two.
    backward = product(32, 64, 256) + 2 * product(32, 256, 64)
    backward += 2 * (product(64, 256, 32) + product(256, 64, 32))
    backward += others(2 * block + loss, 4 + kernels) + 0.5 * (2 * block + loss) / 0.8e12
    assert seconds["0B0"] == pytest.approx(backward, rel=1e-12)


def test_a_pass_in_the_profile_wins_and_the_others_are_listed() -> None:
    experiment = load(None, MLP)
    layers = describe(experiment)
    key = pass_key(Op.FORWARD, layers, FP32)
    profile = Profile({"cores": 2}, passes={key: Timing.certain(0.125)})
    program, costs = model(cluster=from_profile(profile))
    seconds = by_label(program, costs)
    assert seconds["0F0"] == 0.125
    assert costs.estimated == {
        pass_key(op, layers, FP32) for op in (Op.BACKWARD, Op.OPTIMIZER_STEP)
    }
    assert pass_key(Op.FORWARD, layers, BF16) != key != pass_key(Op.FORWARD, layers[:1], FP32)


def test_without_a_profile_nothing_counts_as_estimated() -> None:
    program, costs = model(A100)
    by_label(program, costs)
    assert costs.estimated == set()


def host(**fields: float) -> Cluster:
    return replace(load_preset("laptop"), issue_s=0.0, queue_s=0.0, wake_s=0.0, **fields)


def two_hosts(**fields: float) -> Cluster:
    return host(**fields).resized(nodes=2, devices_per_node=2)


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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_host_of_a_profile_takes_its_time(device: str) -> None:
    """Whatever the passes run on: one thread begins them all."""
    times = {}
    for issue_s in (0.0, 1e-3):
        profile = Profile({"cores": 8}, device, issue_s=issue_s)
        experiment = load(None, ["parallel.pipeline=1", "parallel.microbatches=4"])
        times[issue_s] = predict(experiment, from_profile(profile)).timeline.iteration_time
    passes = 4 * 2 + 1  # forward, backward, the step
    assert times[1e-3] - times[0.0] == pytest.approx(passes * 1e-3, rel=1e-9)


def test_only_what_waits_for_another_stream_wakes() -> None:
    program, costs = model("parallel.pipeline=2", cluster=replace(host(), wake_s=0.25))
    delays = {i.label: costs.delay(i) for i in program if i.task.op is not Op.OPTIMIZER_STEP}
    waiting = {"0SEND_F0", "0B0", "1F0", "1SEND_B0"}
    assert {label for label, delay in delays.items() if delay} == waiting | (
        {"0RECV_B0"} if next(i for i in program if i.label == "0RECV_B0").after else set()
    )
    assert set(delays.values()) == {0.0, 0.25}


def test_cores_are_shared_per_node() -> None:
    cluster = two_hosts(transfer_cores=0.5)
    program, costs = model("parallel.pipeline=2", "parallel.data=2", cluster=cluster)
    assert costs.capacities == {"cores:0": 2, "cores:1": 2}
    demands = {}
    for members in program.meetings:
        demands[tuple(member.rank for member in members)] = dict(costs.demand(members))
    assert demands == {
        (0, 1): {"cores:0": 1.0},  # a pipeline message inside a node
        (1, 0): {"cores:0": 1.0},
        (2, 3): {"cores:1": 1.0},
        (3, 2): {"cores:1": 1.0},
        (0, 2): {"cores:0": 0.5, "cores:1": 0.5},  # gradients between nodes
        (1, 3): {"cores:0": 0.5, "cores:1": 0.5},
    }
    compute = program.ranks[3][-1]
    assert costs.demand((compute,)) == (("cores:1", 1.0),)


@pytest.mark.parametrize(("ranks", "cores"), [(2, 2.0), (2, 1.75), (4, 2.0)])
def test_transfers_beside_passes_are_as_measured(ranks: int, cores: float) -> None:
    """While all ranks compute, a collective takes what it took then, and passes lose what
    they lost then; with one rank computing, cores are left."""
    alone = Timing.certain(1.0)
    profile = Profile(
        machine={"cores": 2},
        collectives={"ALL_REDUCE": {ranks: [(8, replace(alone, busy_s=3.0))]}},
        capacity=cores,
        transfer_cores=0.5,
        transfer_loss=0.25,
        busy_ranks=ranks,
    )
    cluster = from_profile(profile)
    timing = cluster.collective("ALL_REDUCE", tuple(range(ranks)), 8)
    amount, weight = transfer_share(cluster, timing, ranks)
    transfer, one = (("cores", ranks * amount),), (("cores", 1.0),)
    rates = fair_rates([transfer, *[one] * ranks], {"cores": cores}, [weight, *[1.0] * ranks])
    assert rates[0] == pytest.approx(1 / 3)
    assert rates[1:] == pytest.approx([min(1.0, cores / ranks) * (1 - 0.25)] * ranks)
    some = fair_rates([transfer, one], {"cores": cores}, [weight, 1.0])
    assert some[0] > rates[0]
    assert some[1] > rates[1]


@pytest.mark.parametrize("cores", [2, 16])
def test_ranks_wake_up_late_where_others_compute(cores: int) -> None:
    experiment = load(None, ["parallel.pipeline=4", "parallel.microbatches=8"])
    program, passes = lower(experiment), {}
    for task in {i.task for i in program if i.task.op not in COMMUNICATION}:
        layers = describe(experiment)[slice(*task.layers)]
        passes[pass_key(task.op, layers, experiment.workload)] = Timing.certain(0.01)
    points = [(8, Timing.certain(1e-3))]
    profile = Profile({"cores": cores}, passes=passes, messages=points, wake_s=1e-4, busy_ranks=4)
    late = replace(profile, wake_busy_s=1e-3)
    steps = [predict(experiment, from_profile(of), program).timeline for of in (profile, late)]
    times = [step.iteration_time for step in steps]
    waits = sum(bool(i.after) for i in program.ranks[0])
    if cores == 16:
        assert times[0] == times[1]
    else:
        assert times[0] < times[1] < times[0] + 2 * waits * 4e-3


def test_on_a_gpu_a_collective_shares_the_device_of_each_rank() -> None:
    alone = Timing.certain(1.0)
    points = [(8, replace(alone, busy_s=1.5))]
    profile = Profile(machine={"cores": 2}, device="cuda", collectives={"ALL_REDUCE": {4: points}})
    cluster = from_profile(replace(profile, transfer_loss=0.25))
    timing = cluster.collective("ALL_REDUCE", (0, 1, 2, 3), 8)
    amount, weight = transfer_share(cluster, timing, 4)
    both = [(("device:0", amount),), (("device:0", 1.0),)]
    assert fair_rates(both, {"device:0": 1.0}, [weight, 1.0]) == pytest.approx([1 / 1.5, 0.75])
    assert transfer_share(from_profile(profile), alone, 4) == (0.0, 1.0)


@pytest.mark.parametrize("loss", [0.01, 0.4, 0.9])
@pytest.mark.parametrize("stretch", [1.0, 1.5, 6.0])
def test_a_transfer_by_itself_runs_at_full_speed(loss: float, stretch: float) -> None:
    """And beside passes of all ranks it takes what it took, whatever these lose."""
    timing = replace(Timing.certain(1.0), busy_s=stretch)
    profile = Profile(machine={"cores": 2}, transfer_loss=loss, busy_ranks=2)
    amount, weight = transfer_share(from_profile(profile), timing, 2)
    transfer, one = (("cores", 2 * amount),), (("cores", 1.0),)
    cores = {"cores": 2.0}
    assert fair_rates([transfer], cores, [weight]) == [1.0]
    rates = fair_rates([transfer, one, one], cores, [weight, 1.0, 1.0])
    assert rates[0] == pytest.approx(1 / stretch)
    assert rates[1] >= 1 - loss - 1e-9


def test_what_was_not_measured_beside_passes_shares_cores_evenly() -> None:
    cluster = from_profile(Profile(machine={"cores": 2}, transfer_cores=0.5))
    assert transfer_share(cluster, Timing.certain(1.0), 2) == (0.5, 1.0)


@pytest.mark.parametrize("overrides", [[A100], ["run.pace=2"], ["workload.model=unit"]])
def test_devices_paced_and_unit_runs_share_nothing(overrides: list[str]) -> None:
    program, costs = model(*overrides)
    assert costs.capacities == {}
    assert all(costs.demand((instruction,)) == () for instruction in program)
    assert all(costs.delay(instruction) == 0 for instruction in program)


def test_pace_stretches_everything() -> None:
    settings = (A100, "parallel.pipeline=2", "parallel.data=2")
    program, normal = model(*settings)
    _, slow = model(*settings, "run.pace=8")
    assert [slow.seconds(i) for i in program] != [0.0] * len(program)
    paced_program, paced = model(*settings, "run.pace=8")
    assert paced_program.hash() == program.hash()
    for mine, theirs in zip(program, paced_program, strict=True):
        assert paced.seconds(theirs) == 8 * normal.seconds(mine)


def test_unit_costs_are_the_users_seconds() -> None:
    experiment: Experiment = load(
        None,
        [
            *("workload.model=unit", "workload.forward=1", "workload.backward_input=2"),
            *("workload.backward_weight=4", "workload.p2p=8", "parallel.pipeline=2"),
            "parallel.microbatches=1",
        ],
    )
    program = lower(experiment)
    costs = CostModel(program, experiment, resolve(experiment))
    assert by_label(program, costs) == {"0RECV_B0": 8, "0F0": 1, "0SEND_F0": 8, "0B0": 6}


def test_messages_cross_links_and_networks() -> None:
    """Ranks 7 and 8 sit on different nodes, 0 and 1 on one island."""
    program, costs = model(A100, "workload.layers=9", "parallel.pipeline=9")
    nbytes = 4 * 8 * 64 * 4
    times = {(i.rank, i.task.peer): costs.seconds(i) for i in program if i.task.op is Op.SEND}
    cluster = costs.cluster
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
