"""The host's time counts where devices wait for it, and is hidden where it runs ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator import load, lower
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import simulate
from simulator.engine.host_time import hides_host, host_notes, launch_times
from simulator.engine.measured_costs import MeasuredCosts
from simulator.prediction import predict

PROFILE = Profile({}, device="cuda", issue_s=1e-5, queue_s=2e-5, wake_s=3e-5)


def of(*settings):
    experiment = load(None, ["run.device=cuda", "parallel.pipeline=2", *settings])
    cluster = replace(resolve(experiment), profile=PROFILE, issue_s=1e-5, queue_s=2e-5, wake_s=3e-5)
    return experiment, lower(experiment), cluster


def test_host_time_is_hidden_where_hosts_run_ahead():
    for host in ("waits", "auto"):
        experiment, program, cluster = of(f"run.host={host}")
        assert hides_host(experiment, program) is (host == "auto")
        costs = costs_of(program, experiment, cluster)
        assert isinstance(costs, MeasuredCosts)
        for instruction in program:
            extra = costs.seconds(instruction) - costs.alone(instruction)
            waits = host == "waits"
            computes = instruction.task.stream.kind == "compute"
            assert (extra > 0) is (waits and computes)
            assert (costs.delay(instruction) > 0) is (waits and bool(instruction.after))


def test_what_launching_takes_by_hand():
    _, program, cluster = of("parallel.microbatches=1")
    by_hand = []
    for instructions in program.ranks:
        now = 0.0
        for instruction in instructions:
            now += 1e-5 if instruction.task.stream.kind == "compute" else 2e-5
            by_hand.append(now)
    assert launch_times(program, cluster) == pytest.approx(by_hand)


def test_the_steps_that_are_sampled_share_what_launching_takes():
    """Whether hosts can run ahead is found by following the whole program."""
    experiment, program, cluster = of()
    costs = costs_of(program, experiment, cluster)
    assert costs.all_launches(program)
    assert costs.sampled(0, 1).all_launches(program) is costs.all_launches(program)


@pytest.mark.parametrize("issue_s", [1e-9, 10.0])
def test_nothing_begins_before_it_is_launched(issue_s):
    """Devices decide where hosts are quick, hosts where they are slow."""
    experiment, program, cluster = of()
    slow = replace(cluster, issue_s=issue_s, queue_s=0.0)
    timeline = simulate(program, costs_of(program, experiment, slow))
    launched = launch_times(program, slow)
    assert all(timeline.posted >= np.array(launched) - 1e-12)
    free = replace(cluster, issue_s=0.0, queue_s=0.0)
    least_s = simulate(program, costs_of(program, experiment, free)).end.max()
    assert timeline.end.max() == pytest.approx(max(least_s, max(launched)), rel=0.2)
    assert bool(max(launched) > least_s) is (issue_s > 1)


def test_a_host_that_cannot_stay_ahead_is_noted():
    experiment, program, cluster = of()
    assert host_notes(experiment, program, cluster, 1.0) == []
    (note,) = host_notes(experiment, program, cluster, 1e-6)
    assert note.startswith("hosts do not stay ahead of their devices: of ")


def test_a_cpu_is_its_own_host():
    note = "run.host = 'runs-ahead': on CPUs predicted as if hosts waited"
    assert note in predict(load(None, ["run.host=runs-ahead"])).notes
    assert note not in predict(load(None, [])).notes
