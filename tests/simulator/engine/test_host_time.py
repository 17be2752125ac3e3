"""The host's time counts where devices wait for it, and is hidden where it runs ahead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator import load, lower
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.host_time import hides_host, host_notes, launch_seconds
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
    sent = [sum(i.task.stream.kind != "compute" for i in ranks) for ranks in program.ranks]
    by_hand = max(
        1e-5 * (len(ranks) - count) + 2e-5 * count
        for ranks, count in zip(program.ranks, sent, strict=True)
    )
    assert launch_seconds(program, cluster) == pytest.approx(by_hand)


def test_a_host_that_cannot_stay_ahead_is_noted():
    experiment, program, cluster = of()
    assert host_notes(experiment, program, cluster, 1.0) == []
    (note,) = host_notes(experiment, program, cluster, 1e-6)
    assert note.startswith("launching takes hosts up to ")


def test_a_cpu_is_its_own_host():
    note = "run.host = 'runs-ahead': on CPUs predicted as if hosts waited"
    assert note in predict(load(None, ["run.host=runs-ahead"])).notes
    assert note not in predict(load(None, [])).notes
