"""A run that fails says in one line which rank failed, where and why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runtime.launch.job import Job
from runtime.launch.launcher import LaunchError, Workers

HANG_S = 3.0
PIPELINE = {"model": "mlp", "pipeline": 2, "microbatches": 3, "schedule": "gpipe"}

FAULTS = [
    # (rank, instruction, kind), what the message says
    ((1, "1F1", "exit"), r"^rank 1 died in 1F1$"),
    ((0, "0B2", "raise"), r"^rank 0, 0B2: injected fault$"),
    ((0, "0F1", "hang"), r"^rank 0 hangs in 0F1: no progress for 3 s$"),
    ((1, "1SEND_B2", "raise"), r"^rank 1, 1SEND_B2: injected fault$"),
    # Which side of a message hangs cannot be told from outside: both wait for it.
    ((1, "1SEND_B2", "hang"), r"^rank (1, 1SEND_B2|0, 0RECV_B2): no answer within 3 s$"),
]


@pytest.mark.parametrize(
    ("fault", "message", "host"),
    [(*each, "waits") for each in FAULTS] + [(*each, "runs-ahead") for each in FAULTS[:4]],
    ids=lambda value: value if value in ("waits", "runs-ahead") else str(value[-1]),
)
def test_a_rank_that_fails_is_named_and_nothing_is_left(
    fresh, experiment, processes_with, wait_until, fault, message, host
):
    patience = {"timeout_s": HANG_S if fault[2] == "hang" else 60.0}
    tiny = experiment(**PIPELINE, **patience, host=host)
    workers = fresh()
    folder = workers._folder.name
    wait_until(lambda: len(processes_with(folder)) == 3, "agent and two ranks")
    with pytest.raises(LaunchError, match=message) as caught:
        workers.run(Job(tiny, fault=fault))
    assert "\n" not in str(caught.value)
    assert processes_with(folder) == []
    assert not Path(folder).exists()
    with pytest.raises(LaunchError):  # closed, and says so instead of waiting
        workers.run(Job(tiny))


def test_a_rank_that_is_killed_in_a_job_is_named_with_the_likely_cause(experiment, processes_with):
    """The kernel's killer of processes that need too much memory sends this signal."""
    long = experiment(model="unit", forward=0.05, iterations=1000)
    with Workers(1) as workers:  # no rank is left that could tell

        def kill(share, what):
            if what == "step":
                os.kill(max(processes_with(workers._folder.name)), signal.SIGKILL)

        killed = (
            r"^rank 0 died (in 0\w+|between steps): killed \(signal 9\), probably out of memory$"
        )
        with pytest.raises(LaunchError, match=killed):
            workers.run(Job(long), kill)


def test_another_signal_is_not_blamed_on_memory(fresh, experiment, processes_with):
    long = experiment(model="unit", pipeline=2, forward=0.05, iterations=1000)
    workers = fresh()

    def kill(share, what):
        if what == "step":
            os.kill(max(processes_with(workers._folder.name)), signal.SIGABRT)

    with pytest.raises(LaunchError, match=r"^rank 1 died .*: killed \(signal 6\)$"):
        workers.run(Job(long), kill)


def test_a_rank_that_is_killed_between_jobs_is_named(fresh, experiment, processes_with):
    tiny = experiment(**PIPELINE)
    workers = fresh()
    folder = workers._folder.name
    assert workers.run(Job(tiny))["hash"]
    os.kill(max(processes_with(folder)), signal.SIGKILL)  # forked last
    with pytest.raises(LaunchError, match=r"rank 1 died|could not be started"):
        workers.run(Job(tiny))
    assert processes_with(folder) == []


@pytest.mark.parametrize("timeout_s", [5e-3, 0.03])
def test_a_timeout_that_is_too_short_is_told_in_our_words(fresh, experiment, timeout_s):
    """Wherever it strikes: while ranks meet, in a message, or while others compute."""
    long = experiment(model="unit", pipeline=2, forward=0.2, timeout_s=timeout_s)
    with pytest.raises(LaunchError, match=rf"(no answer within|no progress for) {timeout_s:g} s"):
        fresh().run(Job(long))
