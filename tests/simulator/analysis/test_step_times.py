"""The times of single training steps, read from timelines of several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator import load, predict
from simulator.analysis.step_times import StepTimes, step_ends, step_times
from simulator.cluster.catalogue import load_preset
from simulator.cluster.links import Link, Protocol
from simulator.prediction import Prediction
from simulator.timeline.timeline import Kind, Timeline

FORWARD = Kind("F", "F", 0, -1, "compute", -1, 0)


def timeline(steps: list[int], ends: list[float]) -> Timeline:
    """Return a timeline of one rank with passes that end at these times."""
    zeros = np.zeros(len(ends), dtype=np.int64)
    end = np.array(ends)
    return Timeline(1, [FORWARD], zeros, zeros, zeros, end, end, end, step=np.array(steps))


def test_steps_end_with_the_last_of_their_instructions() -> None:
    several = timeline([0, 1, 0, 1, 2, 3], [1.0, 2.0, 3.0, 5.0, 6.5, 8.0])
    assert step_ends(several).tolist() == [3.0, 5.0, 6.5, 8.0]
    assert step_times(several) == StepTimes(4, 2.0, 3.0, steady_s=1.5)  # not the first interval
    assert step_times(timeline([0, 1], [1.0, 3.0])).steady_s == 2.0


def test_a_steady_state_has_whole_periods() -> None:
    averaged = timeline([0, 1, 2, 3, 4, 5], [1.0, 4.0, 5.0, 8.0, 9.0, 12.0])  # every other step
    assert step_times(averaged, 2).steady_s == 2.0
    assert step_times(averaged, 3).steady_s == pytest.approx((12.0 - 5.0) / 3)
    assert step_times(averaged, 6).steady_s is None


def test_a_steady_state_has_no_steps_from_before_the_first_period() -> None:
    late = timeline([0, 1, 2, 3, 4], [10.0, 20.0, 30.0, 31.0, 35.0])
    assert step_times(late, 2, before=3).steady_s == 2.5
    assert step_times(late, 1, before=3).steady_s == 2.5
    assert step_times(late, 1, before=1) == step_times(late)


def test_one_step_has_no_steady_state() -> None:
    one = step_times(timeline([0, 0], [1.0, 2.0]))
    assert one == StepTimes(1, 2.0, 2.0)
    assert one.to_json()["steady_s"] is None


def test_scaled_times_keep_that_of_the_drained_step() -> None:
    """It is of another program, which has a time of its own."""
    scaled = StepTimes(2, 2.0, 3.0, 1.0, drained_s=4.0).scaled(2.0)
    assert scaled == StepTimes(2, 4.0, 6.0, 2.0, drained_s=4.0)
    assert StepTimes(1, 2.0, 3.0).scaled(0.5).steady_s is None


@pytest.mark.parametrize("horizon", [1, 4])
def test_an_empty_step_ends_at_once(horizon: int) -> None:
    assert step_ends(timeline([horizon - 1], [1.0])).tolist() == [0.0] * (horizon - 1) + [1.0]


ALPHA, RATE = 1e-4, 1.25e9  # seconds of a step between nodes; bytes/s of a network card
N = 4


def settled(style: str, *plan: str, workers: int = N) -> tuple[Prediction, float, float]:
    """Predict replicas of one device a node: seconds of a settled step, and bytes of the model."""
    settings = ["model=mlp", "pipeline=1", f"data={workers}", "microbatches=1", *plan]
    settings += [f"global_batch={8 * workers}", "horizon=12", f"data_style={style}"]
    experiment = load(None, [*settings, "preset=aws-p3-2xlarge"])
    ranks = experiment.world_size
    cluster = load_preset("aws-p3-2xlarge").resized(nodes=ranks)
    network = Link(0.0, {"TCP": Protocol(ALPHA, 1.0)})
    topology = replace(cluster.topology, network=network)
    found = predict(experiment, replace(cluster, topology=topology))
    assert found.metrics.steps and found.metrics.steps.steady_s
    return found, found.metrics.steps.steady_s, 4.0 * found.metrics.parameters


def lasting(found: Prediction, *names: str) -> float:
    """The seconds of one instruction of each name, together."""
    line = found.timeline
    spans = line.end - line.start
    return sum(
        float(spans[line.of_kind(lambda kind, name=name: kind.name == name)].max())
        for name in names
    )


def test_one_peer_sends_the_parameters_once_and_a_ring_twice() -> None:
    """α + V/B whatever n is, and 2V/B, as both neighbours share a network card."""
    for workers in (4, 8):
        one, step, size = settled("gossip", "topology=one-peer-exponential", workers=workers)
        beside = lasting(one, "F", "B", "STEP", "MIX")
        assert step == pytest.approx(beside + ALPHA + size / RATE)
    ring, step, size = settled("gossip", "topology=ring")
    beside = lasting(ring, "F", "B", "STEP", "MIX")
    assert step == pytest.approx(beside + 2 * size / RATE)


def test_a_server_that_is_busy_all_the_time_sets_the_rate() -> None:
    """One gradient for each pull, push and update; all n of them are a step."""
    found, _, size = settled("asynchronous")
    rates = found.metrics.rates
    assert rates
    assert rates.update_s == pytest.approx(2 * (ALPHA + size / RATE) + lasting(found, "STEP"))
    assert rates.updates_per_s < RATE / size


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_a_star_takes_as_long_as_all_parameters_through_one_card(workers: int) -> None:
    """2n(α + V/B) where computing takes less than waiting for one's turn: at least n·V/B a way."""
    plan = f"gradients_per_update={workers}"
    found, step, size = settled("soft-synchronous", plan, workers=workers)
    turn = ALPHA + size / RATE
    compute = lasting(found, "F", "B")
    waits = max(compute - (workers - 1) * turn, 0.0)
    assert step == pytest.approx(2 * workers * turn + waits + lasting(found, "STEP"))
    assert step > 2 * workers * size / RATE
