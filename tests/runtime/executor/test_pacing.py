"""Paced runs: what real work was not hidden is counted; planted causes are named."""

from __future__ import annotations

import time

import pytest
from rich.console import Console

from runtime.execution.results import execution_of
from runtime.execution.running import run
from runtime.executor.pacing import Pacing, combine
from runtime.launch.job import Job
from simulator import lower
from simulator.analysis.comparison import compare_timelines
from simulator.cli.results import print_result
from simulator.cluster.resolve import resolve
from simulator.prediction import predict
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM

SLEPT = []


class Clock:
    """Time passes by sleeping and by `now += …` only."""

    now = 100.0

    def sleep(self, seconds):
        SLEPT.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    SLEPT.clear()
    clock = Clock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


@pytest.fixture
def instructions(experiment):
    """Of the first of two ranks, as F0 F1 … on the compute stream, then messages."""
    program = lower(experiment(model="unit", pipeline=2, microbatches=2, schedule="gpipe"))
    return program.ranks[0]


def compute(instructions):
    return [i for i in instructions if i.task.stream == COMPUTE_STREAM]


def test_real_work_is_filled_up_and_what_overran_is_counted(clock, instructions):
    pacing, first = Pacing(lambda _: 1.0), compute(instructions)[0]
    for worked in (10.0, 0.25, 1.5, 3.0):
        pacing.begin_step()
        posted = clock.now
        clock.now += worked
        pacing.after(first, posted)
        if worked == 10.0:  # warm-up
            pacing.end_warm_up([])
    assert SLEPT == [0.75]
    assert pacing.report() == {
        "executions": 3,
        "overran": 2,
        "longest_overrun_s": 2.0,
        "largest_ratio": 1.5,
        "where": f"rank 0, {first.label}",
    }


def test_a_local_request_begins_when_it_is_its_turn(clock, experiment):
    """It is stretched from then on, not from when it was ready."""
    program = lower(experiment(data=2, data_style="ad-psgd", topology="ring", model="mlp"))
    copy = next(i for i in program.ranks[1] if i.task.queue and i.task.op is Op.SNAPSHOT)
    pacing = Pacing(lambda _: 1.0)
    pacing.begin_step()
    posted = clock.now
    clock.now += 5.0  # others were served
    pacing.after(copy, posted)
    assert SLEPT == [1.0]


def test_host_time_and_oversleeping_do_not_add_up(clock, instructions):
    pacing, (first, second, *_) = Pacing(lambda _: 1.0), compute(instructions)
    pacing.begin_step()
    clock.now += 0.25
    pacing.after(first, 100.0)
    clock.now += 0.125  # slept too long, and time to get to the next
    posted = clock.now
    clock.now += 0.25
    pacing.after(second, posted)
    assert clock.now == 102.0
    assert pacing.report()["overran"] == 0


def test_what_is_late_moves_what_follows(clock, instructions):
    pacing, (first, second, *_) = Pacing(lambda _: 1.0), compute(instructions)
    pacing.begin_step()
    clock.now += 1.5
    pacing.after(first, 100.0)
    pacing.after(second, clock.now)
    assert clock.now == 102.5


def test_a_transfer_begins_when_both_are_there_and_its_real_time_counts(clock, instructions):
    pacing = Pacing(lambda _: 1.0)
    send = next(i for i in instructions if i.task.op == "SEND")
    for began, known in ((100.0, 0.0), (200.0, 0.125), (300.0, 9.0)):
        clock.now = began
        pacing.begin_step()
        for other in send.after:
            pacing.is_due(other, began)
        pacing.known = {("message", send.task.nbytes): known}
        clock.now = began + 0.25  # the partner, or the transfer, takes that long
        pacing.after(send, began)
        # It began at most `known` before it was over, and not before it could.
        assert clock.now == began + max(0.25 - known, 0.0) + 1.0
    assert pacing.fastest == {("message", send.task.nbytes): 0.25}


def test_the_fastest_transfer_of_all_ranks_is_its_real_time():
    pacing = Pacing(lambda _: 1.0)
    pacing.end_warm_up([{("message", 8): 0.5, ("SHIFT", 4): 0.1}, {("message", 8): 0.2}])
    assert pacing.known == {("message", 8): 0.2, ("SHIFT", 4): 0.1}


def test_ranks_are_combined():
    one = {"executions": 4, "overran": 0, "longest_overrun_s": 0.0, "largest_ratio": 0.5}
    two = {"executions": 6, "overran": 3, "longest_overrun_s": 0.1, "largest_ratio": 1.2}
    found = combine([one | {"where": "here"}, two | {"where": "there"}])
    assert found == two | {"executions": 10, "where": "there"}


def test_instructions_without_a_modelled_time_do_not_count(clock, instructions):
    free = Pacing(lambda _: 0.0)
    free.begin_step()
    clock.now += 1.0
    free.after(compute(instructions)[0], 100.0)
    assert free.report()["executions"] == free.report()["overran"] == 0


def test_a_pace_that_is_too_fast_says_so_and_what_to_do(workers, experiment):
    """A device that needs nanoseconds for what takes this machine longer."""
    keys = {"model": "gpt", "pipeline": 2, "microbatches": 2, "dtype": "fp32"}
    data = experiment(**keys, pace=1.0).model_dump(exclude_unset=True)
    fast = type(experiment()).model_validate(data | {"cluster": {"preset": "dgx-h100"}})
    ran = run(fast, workers=workers)
    pacing = ran.statistics.pacing
    assert pacing.overran > 0
    assert pacing.largest_ratio > 1
    assert pacing.needed_pace > pacing.largest_ratio
    console = Console(record=True, width=300)
    print_result(console, "paced", ran)
    text = console.export_text()
    assert f"{pacing.overran} of {pacing.executions} instructions overran" in text
    assert f"raise run.pace to {pacing.needed_pace:g}" in text


# Planted causes -----------------------------------------------------------------------

UNIT = {"model": "unit", "pipeline": 2, "microbatches": 4, "schedule": "gpipe", "iterations": 3}
UNIT |= {"forward": 0.02, "backward_input": 0.02, "backward_weight": 0.02, "p2p": 0.005}


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ((1, "compute", "slow:2.5"), "compute of rank 1"),
        ((0, "compute", "slow:2.5"), "compute of rank 0"),
        ((0, "send:1", "delay:0.1"), "messages 0→1"),
        ((1, "send:0", "delay:0.1"), "messages 1→0"),
    ],
    ids=["slow-1", "slow-0", "link-01", "link-10"],
)
def test_a_planted_cause_is_named(workers, experiment, fault, place):
    plan = experiment(**UNIT)
    prediction = predict(plan, resolve(plan))
    answer = workers.run(Job(plan, fault=fault))
    ran = execution_of(plan, prediction.program, None, answer)
    found = compare_timelines(prediction.timeline, ran.measurement.timeline, prediction.program)
    assert found.cause.startswith(f"{place} (+")


def test_ranks_have_the_speeds_of_the_prediction(workers, experiment):
    """Nothing ends before it is due, so a run takes as long as its slow ranks and steps."""
    keys = experiment(**UNIT, horizon=2).model_dump(exclude_unset=True)
    uneven = {"slowdown": {1: 2.0}, "jitter": "lognormal", "jitter_spread": 0.4}
    plan = type(experiment())(**keys, cluster=uneven)
    usual = predict(type(experiment())(**keys)).iteration_time_s
    predicted = predict(plan, resolve(plan)).iteration_time_s
    assert predicted > 1.2 * usual
    assert run(plan, workers=workers).iteration_time_s > 0.98 * predicted
