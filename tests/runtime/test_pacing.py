"""Paced runs: what real work was not hidden is counted; planted causes are named."""

from __future__ import annotations

import time

import pytest
from rich.console import Console

from runtime import execution
from runtime.executor import inject, linger
from runtime.job import Job
from runtime.pacing import Pacing, combine
from simulator import lower
from simulator.cluster import resolve
from simulator.comparison import compare
from simulator.prediction import predict
from simulator.report import print_result

SLEPT = []


@pytest.fixture
def paced(experiment, monkeypatch):
    """Of instructions that are modelled as 1 s each, with a clock of the test's own."""
    SLEPT.clear()
    monkeypatch.setattr(time, "sleep", SLEPT.append)
    program = lower(experiment(model="unit", pipeline=2, microbatches=2))
    return Pacing(lambda _: 1.0), program.ranks[0]


def test_real_work_is_filled_up_and_what_overran_is_counted(paced, monkeypatch):
    pacing, instructions = paced
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pacing.stretch(instructions[0], 90.0)  # warm-up, forgotten
    pacing.restart()
    for worked in (0.25, 1.5, 3.0):
        pacing.stretch(instructions[0], 100.0 - worked)
    pacing.stretch(instructions[1], None)
    assert SLEPT == [0.75, 1.0]
    assert pacing.report() == {
        "executions": 4,
        "overran": 2,
        "longest_overrun_s": 2.0,
        "largest_ratio": 1.5,
        "where": f"rank 0, {instructions[0].label}",
    }


def test_ranks_are_combined():
    one = {"executions": 4, "overran": 0, "longest_overrun_s": 0.0, "largest_ratio": 0.5}
    two = {"executions": 6, "overran": 3, "longest_overrun_s": 0.1, "largest_ratio": 1.2}
    found = combine([one | {"where": "here"}, two | {"where": "there"}])
    assert found == two | {"executions": 10, "where": "there"}


def test_instructions_without_a_modelled_time_do_not_count(paced):
    _, instructions = paced
    free = Pacing(lambda _: 0.0)
    free.stretch(instructions[0], 0.0)
    assert free.report()["executions"] == free.report()["overran"] == 0


@pytest.mark.parametrize(
    ("value", "rounded"), [(1234.0, 1300.0), (0.0312, 0.032), (7.0, 7.0), (0.0, 0.0)]
)
def test_an_advised_pace_has_two_digits(value, rounded):
    assert execution._round_up(value) == pytest.approx(rounded)


def test_a_pace_that_is_too_fast_says_so_and_what_to_do(workers, experiment):
    """A device that needs nanoseconds for what takes this machine longer."""
    keys = {"model": "gpt", "pipeline": 2, "microbatches": 2, "dtype": "fp32"}
    data = experiment(**keys, pace=1.0).model_dump(exclude_unset=True)
    fast = type(experiment()).model_validate(data | {"cluster": {"preset": "dgx-h100"}})
    ran = execution.execute(fast, workers=workers)
    pacing = ran.result["pacing"]
    assert pacing["overran"] > 0
    assert pacing["largest_ratio"] > 1
    assert pacing["needed_pace"] > pacing["largest_ratio"]
    console = Console(record=True, width=300)
    print_result(console, "paced", ran.result)
    text = console.export_text()
    assert f"{pacing['overran']} of {pacing['executions']} instructions overran" in text
    assert f"raise run.pace to {pacing['needed_pace']:g}" in text


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
    ran = execution.execution_of(plan, prediction.program, prediction.cluster, answer)
    found = compare(prediction.timeline, ran.measurement.timeline, prediction.program)
    assert found.cause.startswith(f"{place} (+")


def test_faults_that_only_take_time(monkeypatch):
    monkeypatch.setattr(time, "sleep", SLEPT.append)
    SLEPT.clear()
    inject("delay:0.25")
    inject("slow:3")
    linger("delay:0.25", 2.0)
    linger("slow:3", 2.0)
    assert SLEPT == [0.25, 4.0]
