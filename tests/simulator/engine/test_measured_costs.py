"""What an instruction costs on a calibrated machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator import Program, load, lower, predict
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import from_profile
from simulator.cluster.resource import Resource, ResourceKind
from simulator.cluster.timing import Timing
from simulator.cluster.transfer_share import transfer_share
from simulator.engine.contention import fair_rates
from simulator.engine.measured_costs import MeasuredCosts
from simulator.engine.pass_key import pass_key
from simulator.experiment.workload import Workload
from simulator.program.operations import COMMUNICATION, Op
from simulator.workloads.describe import describe
from small_mlp import MLP, by_label, model

CORES, DEVICE = Resource(ResourceKind.CORES, 0), Resource(ResourceKind.DEVICE, 0)
FP32, BF16 = Workload(dtype="fp32"), Workload(dtype="bf16")


def test_a_pass_in_the_profile_wins_and_the_others_are_listed() -> None:
    experiment = load(None, MLP)
    layers = describe(experiment)
    key = pass_key(Op.FORWARD, layers, FP32)
    profile = Profile({"cores": 2}, passes={str(key): Timing.certain(0.125)})
    program, costs = model(cluster=from_profile(profile))
    seconds = by_label(program, costs)
    assert seconds["0F0"] == 0.125
    assert costs.durations.estimated == {
        pass_key(op, layers, FP32) for op in (Op.BACKWARD, Op.OPTIMIZER_STEP)
    }
    assert pass_key(Op.FORWARD, layers, BF16) != key != pass_key(Op.FORWARD, layers[:1], FP32)


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


@pytest.mark.parametrize(("ranks", "cores"), [(2, 2.0), (2, 1.75), (4, 2.0)])
def test_transfers_beside_passes_are_as_measured(ranks: int, cores: float) -> None:
    """While all ranks compute, a collective takes what it took then, and passes lose what
    they lost then; with one rank computing, cores are left."""
    alone = Timing.certain(1.0)
    profile = Profile(
        machine={"cores": 2},
        collectives={Op.ALL_REDUCE: {ranks: [(8, replace(alone, busy_s=3.0))]}},
        capacity=cores,
        transfer_cores=0.5,
        transfer_loss=0.25,
        busy_ranks=ranks,
    )
    cluster = from_profile(profile)
    timing = cluster.collective(Op.ALL_REDUCE, tuple(range(ranks)), 8)
    amount, weight = transfer_share(cluster, timing, ranks)
    transfer, one = ((CORES, ranks * amount),), ((CORES, 1.0),)
    rates = fair_rates([transfer, *[one] * ranks], {CORES: cores}, [weight, *[1.0] * ranks])
    assert rates[0] == pytest.approx(1 / 3)
    assert rates[1:] == pytest.approx([min(1.0, cores / ranks) * (1 - 0.25)] * ranks)
    some = fair_rates([transfer, one], {CORES: cores}, [weight, 1.0])
    assert some[0] > rates[0]
    assert some[1] > rates[1]


@pytest.mark.parametrize("cores", [2, 16])
def test_ranks_wake_up_late_where_others_compute(cores: int) -> None:
    experiment = load(None, ["parallel.pipeline=4", "parallel.microbatches=8"])
    program, passes = lower(experiment), {}
    for task in {i.task for i in program if i.task.op not in COMMUNICATION}:
        layers = describe(experiment)[slice(*task.layers)]
        passes[str(pass_key(task.op, layers, experiment.workload))] = Timing.certain(0.01)
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
    profile = Profile(machine={"cores": 2}, device="cuda", collectives={Op.ALL_REDUCE: {4: points}})
    cluster = from_profile(replace(profile, transfer_loss=0.25))
    timing = cluster.collective(Op.ALL_REDUCE, (0, 1, 2, 3), 8)
    amount, weight = transfer_share(cluster, timing, 4)
    both = [((DEVICE, amount),), ((DEVICE, 1.0),)]
    assert fair_rates(both, {DEVICE: 1.0}, [weight, 1.0]) == pytest.approx([1 / 1.5, 0.75])
    assert transfer_share(from_profile(profile), alone, 4) == (0.0, 1.0)


@pytest.mark.parametrize("loss", [0.01, 0.4, 0.9])
@pytest.mark.parametrize("stretch", [1.0, 1.5, 6.0])
def test_a_transfer_by_itself_runs_at_full_speed(loss: float, stretch: float) -> None:
    """And beside passes of all ranks it takes what it took, whatever these lose."""
    timing = replace(Timing.certain(1.0), busy_s=stretch)
    profile = Profile(machine={"cores": 2}, transfer_loss=loss, busy_ranks=2)
    amount, weight = transfer_share(from_profile(profile), timing, 2)
    transfer, one = ((CORES, 2 * amount),), ((CORES, 1.0),)
    cores = {CORES: 2.0}
    assert fair_rates([transfer], cores, [weight]) == [1.0]
    rates = fair_rates([transfer, one, one], cores, [weight, 1.0, 1.0])
    assert rates[0] == pytest.approx(1 / stretch)
    assert rates[1] >= 1 - loss - 1e-9


def test_what_was_not_measured_beside_passes_shares_cores_evenly() -> None:
    cluster = from_profile(Profile(machine={"cores": 2}, transfer_cores=0.5))
    assert transfer_share(cluster, Timing.certain(1.0), 2) == (0.5, 1.0)


def spread_costs(rounds: list[list[float]]) -> tuple[Program, MeasuredCosts]:
    """A forward pass of 1 to 10 s, everything else certain."""
    key = pass_key(Op.FORWARD, describe(load(None, MLP)), FP32)
    tenths = tuple(float(n) for n in range(1, 11))
    timing = replace(Timing.certain(5.5), tenths=tenths)
    profile = Profile({"cores": 2}, passes={str(key): timing}, rounds=rounds)
    program, costs = model("parallel.microbatches=40", cluster=from_profile(profile))
    assert isinstance(costs, MeasuredCosts)
    return program, costs


def test_a_sampled_step_draws_every_duration_from_those_measured() -> None:
    program, costs = spread_costs([])
    forwards = [i for i in program if i.task.op is Op.FORWARD]
    assert {costs.seconds(i) for i in forwards} == {5.5}
    step = [costs.sampled(7, 0).seconds(i) for i in forwards]
    assert len(set(step)) > 5
    assert set(step) <= {float(n) for n in range(1, 11)}
    assert step == [costs.sampled(7, 0).seconds(i) for i in forwards]
    assert step != [costs.sampled(7, 1).seconds(i) for i in forwards]
    assert step != [costs.sampled(8, 0).seconds(i) for i in forwards]
    assert {costs.seconds(i) for i in forwards} == {5.5}  # the costs sampled from are unchanged


def test_steps_take_the_speeds_of_calibration_rounds_in_turn() -> None:
    program, costs = spread_costs([[1.0], [2.0]])
    _, even = spread_costs([])
    forward = program.ranks[0][0]
    ratios = [
        costs.sampled(7, n).seconds(forward) / even.sampled(7, n).seconds(forward) for n in range(4)
    ]
    assert ratios == [1.0, 2.0, 1.0, 2.0]


def test_notes_name_what_a_profile_lacks() -> None:
    program, costs = model(
        "parallel.data=2", "parallel.pipeline=2", cluster=from_profile(Profile({"cores": 2}))
    )
    assert costs.durations.notes() == []
    by_label(program, costs)
    passes, transfers = costs.durations.notes()
    assert passes.startswith("none of the 3 passes of this plan are in the profile; all were ")
    assert transfers.startswith("no collectives or messages in the profile: ")
